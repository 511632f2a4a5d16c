"""What makes a load test impossible."""


class LoadError(ValueError):
    """A load test cannot begin: an option that means nothing, or a server that is not there. The message says which."""
