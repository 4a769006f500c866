"""What a run shows: a table on the terminal, charts, the page in docs; every figure comes from the results."""
