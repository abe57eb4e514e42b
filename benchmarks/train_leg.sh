#!/usr/bin/env bash
# One leg of a long training run: train for a while, stop cleanly, pack the best model to carry away.
#
#   benchmarks/train_leg.sh DATA RUN CONFIG [options of `colordaemon train` …]
#
# Called again, it goes on where it was. DATA may grow between legs: what is new joins the next one.
# LEG_SECONDS (480) bounds a leg, PYTHON (python3) names the interpreter. The model comes in pieces
# of 15 MiB, RUN/pieces/model.*, with their checksum; `cat model.* > model.safetensors` joins them.
set -euo pipefail
data=$1 run=$2 config=$3
shift 3
status=0
timeout --signal=INT --kill-after=60 "${LEG_SECONDS:-480}" \
    "${PYTHON:-python3}" -m colordaemon train "$data" -o "$run" --resume --config "$config" "$@" || status=$?
# 124: the time of the leg was up; 130: stopped by hand. Either way the state is saved.
case $status in 0 | 124 | 130) ;; *) exit "$status" ;; esac
tail -n 3 "$run/metrics.csv" || true
if [ -e "$run/model.safetensors" ]; then
    mkdir -p "$run/pieces"
    rm -f "$run"/pieces/model.*
    split --bytes=15M --numeric-suffixes "$run/model.safetensors" "$run/pieces/model."
    (cd "$run" && sha256sum model.safetensors > pieces/SHA256SUMS)
fi
