"""Fault tests: each row injects one fault and checks that the promises hold."""
