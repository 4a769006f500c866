"""The experiments: each module says its sizes and yields the figures of round after round, from fresh ground."""
