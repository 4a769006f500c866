"""Kafka, the order: topics, record format, producers and consumers. Only this package configures the client."""
