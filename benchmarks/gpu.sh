#!/usr/bin/env bash
# What there is to know of a machine with a GPU: the tests that need one, then the benchmarks.
#
#   benchmarks/gpu.sh RESULTS [FILM …]
#
# Takes a few minutes. PYTHON (python3) names the interpreter. Only files with such tests are collected:
# others import what a bare machine lacks, as do films, which need PyAV. With DEVICE=cpu the tests are
# skipped and the benchmarks run on the processor.
set -euo pipefail
results=$1
shift
python=${PYTHON:-python3} device=${DEVICE:-cuda}
mkdir -p "$results"
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
[ "$device" != cuda ] || export COLORDAEMON_REQUIRE_GPU=1
mapfile -t tests < <(grep --files-with-matches 'mark\.gpu' tests/test_*.py)
# Without its plugin, pytest does not know what a timeout is, and here warnings are errors.
"$python" -m pytest -m gpu -q -W ignore::pytest.PytestConfigWarning "${tests[@]}" 2>&1 |
    tee "$results/tests.txt"
"$python" benchmarks/network.py --device "$device" --json "$results/network.json" |
    tee "$results/network.txt"
if [ $# -gt 0 ]; then
    "$python" benchmarks/film.py "$@" --device "$device" --json "$results/film.json" |
        tee "$results/film.txt"
fi
