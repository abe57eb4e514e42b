#!/usr/bin/env bash
# What there is to know of a machine with a GPU: the tests that need one, then the benchmarks.
#
#   benchmarks/gpu.sh RESULTS [FILM …]
#
# Takes a few minutes. PYTHON (python3) names the interpreter.
set -euo pipefail
results=$1
shift
python=${PYTHON:-python3}
mkdir -p "$results"
cd "$(dirname "$0")/.."
COLORDAEMON_REQUIRE_GPU=1 "$python" -m pytest -m gpu -q 2>&1 | tee "$results/tests.txt"
"$python" benchmarks/network.py --device cuda --json "$results/network.json" | tee "$results/network.txt"
if [ $# -gt 0 ]; then
    "$python" benchmarks/film.py "$@" --device cuda --json "$results/film.json" | tee "$results/film.txt"
fi
