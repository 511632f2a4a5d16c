"""The server: HTTP, the engine, and the broker between them."""
