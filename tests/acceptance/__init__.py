"""The whole system: real processes on real parts, as users have them."""
