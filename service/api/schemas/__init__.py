"""Bodies of requests and responses; the types that decode and encode them also describe them in OpenAPI."""
