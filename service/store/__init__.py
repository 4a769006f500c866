"""PostgreSQL, the source of truth: tables, queries, migrations. Only this package imports the driver."""
