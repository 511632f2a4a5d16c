"""Everything that is to be known on a GPU, in one command of a few minutes: `make gpu`, or benchmarks/gpu/run.sh."""
