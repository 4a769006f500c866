"""Programs that use generated clients: tests/acceptance/test_generated_clients.py runs them."""
