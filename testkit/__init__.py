"""Test clients and servers: a webhook receiver, a load client and the history of client answers."""
