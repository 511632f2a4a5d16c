"""What speculation saves, alone and through a server."""
