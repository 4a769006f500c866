"""Flower's settings; what the environment says comes first. Its API can start tasks: it stays on loopback."""

import os

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
