"""The command of every published figure, grouped by question: `python -m benchmarks --help` lists them."""
