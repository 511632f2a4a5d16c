"""`unmask bench`: a load test of a running server through its HTTP API. It knows nothing of tensors or of the server.

`load` says which requests are sent and when, `client` sends them and records what it sees, `report` turns the records
into figures, tables and pictures. Nothing is imported here, so that `unmask --help` does not wait for it.
"""


class LoadError(ValueError):
    """A load test cannot begin: an option is wrong, or the server cannot be reached. The message says which."""
