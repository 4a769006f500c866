"""Accepts and decides coupon requests.

Layers: api and commands, usecases, adapters (gate, stream, store, webhooks), domain.
"""
