"""Telling the user: signed webhooks; the only room that knows the HTTP client."""
