"""What the server costs, under every kind of load."""
