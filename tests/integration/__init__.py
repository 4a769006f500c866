"""One part of the service at a time, on real Kafka, PostgreSQL and Valkey."""
