"""Load on a running server through its public HTTP API, measured by the client's clock. Knows nothing of tensors.

`workload` says what is asked and when, `client` asks and keeps what was seen, `run` is the closed and the open loop,
`summary` makes figures of it, `report` and `plot` show them. Nothing is imported here: the command line answers
`--help` without what a load needs.
"""
