"""One small patch for each guard that carries a promise, and the run that expects each one's test to fail."""
