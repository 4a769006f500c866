"""The world around the pure core as plain values: a model for the state machine, and a stand-in for nothing else."""
