"""What the service does, step by step: each use case calls the rooms in order and holds the transaction."""
