"""The experiments: each module says its sizes and yields the figures of one round after another from one fresh ground."""
