"""The groups of commands of the console script, thin over the use cases."""
