"""Measurements on the local stack; figures are only compared within one run."""
