"""One room at a time on real Kafka, PostgreSQL and Valkey."""
