"""Tests read as promises: unit is pure, integration uses real parts, acceptance runs real processes."""
