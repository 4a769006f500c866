"""Kafka, the order: topics, the records' form, producers and consumers; the only room that knows the client."""
