"""`python -m benchmarks.evaluation` is `python -m benchmarks evaluation`."""

import sys

from benchmarks.__main__ import run_one

sys.exit(run_one("evaluation", sys.argv[1:]))
