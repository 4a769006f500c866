"""Answers requests for coupons: api → usecases → gate, stream, store, notice, all around the pure domain."""
