#!/usr/bin/env bash
# Correctness and figures on a GPU, at most six minutes; needs Python with torch and Triton, and nothing installed:
#
#     benchmarks/gpu/run.sh [--out FOLDER] [--device cpu]
#
# Wheels in build/gpu-wheels (`make gpu-wheels` on a machine with a package index) are unpacked beside them and used.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
packages=build/gpu-packages
if compgen -G 'build/gpu-wheels/*.whl' >/dev/null; then
	rm -rf "$packages"
	mkdir -p "$packages"
	for wheel in build/gpu-wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$packages"; done
fi
export PYTHONPATH="$PWD/kernels:$PWD/diffusion:$PWD/model_store:$PWD/service:$PWD/bench:$PWD:$PWD/$packages${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu "$@"
