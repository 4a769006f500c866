"""Coupons, requests and decisions as values and pure functions; imports only the standard library."""
