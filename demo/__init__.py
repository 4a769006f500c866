"""The demo: thousands of users compete for a few coupons on the real system, and every promise is verified."""
