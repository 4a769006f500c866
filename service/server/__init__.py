"""The HTTP server of the API and of the issuer: uvicorn with limits, and responses as bytes."""
