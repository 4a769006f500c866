"""FastAPI: speaks HTTP, calls the use cases, turns errors into problems."""
