"""A model of log, database and gate as plain values, around the real domain functions; for the state machine only."""
