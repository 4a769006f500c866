"""What a coupon, a request and a decision are; standard library only."""
