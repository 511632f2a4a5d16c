"""What goes wrong with models on disk."""


class BundleError(ValueError):
    """A bundle cannot be opened or written; the message names the file and what is wrong with it."""
