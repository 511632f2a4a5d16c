"""How long the import of an official checkpoint takes, and how much memory.

Writes a synthetic checkpoint of the official size in the official format (131 M parameters, their EMA and Adam's two
moments: about 2 GiB), imports it in a process of its own, and deletes both.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import Numbers, interpreter

GIB = 1 << 30
WRITE = """
import sys
from pathlib import Path
from tests.model_store.official_format import OFFICIAL, checkpoint, save
save(checkpoint(OFFICIAL, optimizer=True), Path(sys.argv[1]))
"""
IMPORT = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from unmask_model_store.importers import Request, import_checkpoint
imported = time.perf_counter()
import_checkpoint(Request(Path(sys.argv[1]), Path(sys.argv[2])))
seconds = time.perf_counter() - imported
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"start_seconds": imported - started, "seconds": seconds, "peak_bytes": peak}))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, help="folder for 3 GiB of temporary files (default: the system's)")


def measured(arguments: argparse.Namespace) -> Numbers:
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        file, bundle = Path(directory, "synthetic.ckpt"), Path(directory, "bundle")
        subprocess.run([*interpreter(), "-c", WRITE, str(file)], check=True)
        command = [*interpreter(), "-c", IMPORT, str(file), str(bundle)]
        found: Numbers = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        sizes = {
            "checkpoint_bytes": file.stat().st_size,
            "bundle_bytes": sum(x.stat().st_size for x in bundle.iterdir()),
        }
    print(
        f"checkpoint {sizes['checkpoint_bytes'] / GIB:.2f} GiB → bundle {sizes['bundle_bytes'] / GIB:.2f} GiB\n"
        f"{found['seconds']:.1f} s (and {found['start_seconds']:.1f} s to start Python), "
        f"peak resident memory {found['peak_bytes'] / GIB:.2f} GiB"
    )
    return sizes | found
