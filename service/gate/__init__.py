"""Redis, the fast refusal: seats taken before the log; never the truth, refilled from it when empty."""
