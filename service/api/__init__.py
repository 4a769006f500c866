"""The HTTP API: parses requests, calls the use cases and renders results and errors."""
