"""The demo: thousands of users race for a few coupons on the real stack, then the proof that all promises held."""
