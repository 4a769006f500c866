"""Use cases: each calls the adapters in a fixed order and owns the transaction."""
