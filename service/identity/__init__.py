"""Users' tokens: the keys that verify them, and what they state."""
