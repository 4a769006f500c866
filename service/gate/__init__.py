"""The gate in Redis: it admits or refuses requests before they reach the log, and is refilled from the database."""
