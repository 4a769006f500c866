"""Signed webhooks; the only package that imports the HTTP client."""
