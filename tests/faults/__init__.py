"""The promises under faults: every row breaks one thing for real and proves that nothing else broke."""
