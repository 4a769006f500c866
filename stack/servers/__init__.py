"""The servers of the local stack: how Kafka, PostgreSQL and Valkey are installed, started and health-checked."""
