"""The local stack: a supervisor for real Kafka, PostgreSQL and Valkey servers and the application's processes."""
