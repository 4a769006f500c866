"""A small world around the pure core: a log, a database and a gate as plain values, for the state machine."""
