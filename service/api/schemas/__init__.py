"""The bodies of requests and answers; the types that read and write them also make the OpenAPI document."""
