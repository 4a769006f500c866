"""Command groups of the console script `coupons`; they call the use cases and print the results."""
