"""Test clients and servers: a webhook receiver, a server of public keys, load clients and client answers."""
