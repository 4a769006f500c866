"""Load: HTTP requests from a generator process, records appended to Kafka directly, and rows of past coupons."""
