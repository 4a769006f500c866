"""The local stack: real Kafka, PostgreSQL and Valkey and the application's processes, under one supervisor."""
