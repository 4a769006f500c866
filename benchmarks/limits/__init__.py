"""Limits of PostgreSQL, Kafka and Valkey: the rate of each at the bare work, without this project's code around it."""
