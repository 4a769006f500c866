"""What this project replaces, written as its advocates would, on the same tables; and a server that answers a constant."""
