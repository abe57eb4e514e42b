#!/usr/bin/env bash
# What there is to know of a machine with a GPU: the tests that need one, then `colordaemon bench`.
#
#   benchmarks/gpu.sh RESULTS [FILM …]
#
# Takes a few minutes. PYTHON (python3) names the interpreter. Only files with such tests are collected:
# others import what a bare machine lacks. Films are measured where PyAV can be loaded, photos where
# libvips can be as well. With DEVICE=cpu the tests are skipped and the benchmarks run on the
# processor; BENCH has further options of the command.
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
read -ra options <<< "${BENCH:-}"
only=network
if "$python" -c "import av"; then
    only+=,films
    ! "$python" -c "import pyvips" || only+=,photos
else
    set --
fi
"$python" -m colordaemon bench "$@" --device "$device" --only $only "${options[@]}" --json \
    2>&1 > "$results/bench.json" | tee "$results/bench.txt"
