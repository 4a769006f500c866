"""PostgreSQL, the truth: tables, queries, migrations; the only room that knows the driver."""
