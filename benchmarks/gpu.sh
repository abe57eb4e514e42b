#!/usr/bin/env bash
# What there is to know of a machine with a GPU, within five minutes: the tests that need one,
# `colordaemon bench` at stride 1, and gpu.py, which tells what each part of the work on a GPU brings.
#
#   benchmarks/gpu.sh RESULTS [FILM …]
#
# PYTHON (python3) names the interpreter, WHEELS a folder of wheels to be used that are not installed.
# LIMIT (300) is the time for all of it, in seconds: what there is none left for is left out and named.
# HEIGHT (1080) and SECONDS_OF_FILM (5) are of the clips that are made where no film is named. With
# DEVICE=cpu the tests are skipped and everything runs on the processor. BENCH has further options of
# the command. Only files with such tests are collected: others import what a bare machine lacks. Films
# are measured where PyAV can be loaded.
set -uo pipefail
results=$(realpath -m "$1")
shift
films=()
for film in "$@"; do films+=("$(realpath "$film")"); done
wheels=${WHEELS:+$(realpath "$WHEELS")}
python=${PYTHON:-python3} device=${DEVICE:-cuda} limit=${LIMIT:-300}
height=${HEIGHT:-1080} film_seconds=${SECONDS_OF_FILM:-5}
failed=0
mkdir -p "$results"
cd "$(dirname "$0")/.." || exit
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    for wheel in "$wheels"/*.whl; do "$python" -m zipfile --extract "$wheel" "$site"; done
    export PYTHONPATH=$PYTHONPATH:$site
fi
[ "$device" != cuda ] || export COLORDAEMON_REQUIRE_GPU=1

left() { echo $((limit > SECONDS ? limit - SECONDS : 1)); }

say() { echo "== $SECONDS s: $*"; }

say "tests"
mapfile -t tests < <(grep --files-with-matches 'mark\.gpu' tests/test_*.py)
# Without its plugin, pytest does not know what a timeout is, and here warnings are errors.
timeout "$(left)" "$python" -m pytest -m gpu -q --continue-on-collection-errors \
    -W ignore::pytest.PytestConfigWarning "${tests[@]}" 2>&1 | tee "$results/tests.txt"
[ "${PIPESTATUS[0]}" = 0 ] || failed=1

read -ra options <<< "${BENCH:-}"
settings=$(mktemp --suffix=.yaml)
echo "film: {stride: 1}" > "$settings"

# One part a call, so that what is stopped takes no other figures with it.
bench() {
    say "bench: $1"
    timeout "$2" "$python" -m colordaemon bench "${films[@]}" --device "$device" --only "$1" \
        --sizes "$height" --seconds "$film_seconds" --batches 8,128 --config "$settings" \
        "${options[@]}" --json 2>&1 > "$results/$1.json" | tee "$results/$1.txt"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
}

if "$python" -c "import av"; then
    bench films $(($(left) / 2 + 1))
    bench network $(($(left) / 2 + 1))
    say "what each part brings"
    # Importing torch takes seconds, before its own clock starts.
    timeout "$(($(left) + 20))" "$python" benchmarks/gpu.py "$results" "${films[@]:0:1}" \
        --device "$device" --seconds "$(left)" --height "$height" \
        --clip-seconds "$film_seconds" 2>&1 | tee "$results/gpu.txt"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
else
    films=()
    bench network "$(left)"
fi
rm -f "$settings"
say "done, results in $results"
exit "$failed"
