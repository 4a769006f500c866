"""What this project replaces, as its advocates would write it, on the same tables; and a server with a constant."""
