#!/usr/bin/env bash
# A quarter of an hour on a bare GPU machine, in trips; gpu_leg.md is the plan.
#
#   benchmarks/gpu_leg.sh trial            two short epochs of the real shape, judged and saved
#   benchmarks/gpu_leg.sh fill             decodes the pictures that have come
#   benchmarks/gpu_leg.sh train [SECONDS]  trains until so many seconds (585) after its own start, and
#                                          packs what comes back; called again, it goes on
#   benchmarks/gpu_leg.sh keep             only puts aside what has come
#   benchmarks/gpu_leg.sh test [FILM …]    the GPU's tests and benchmarks
#
# Works in the tree, with nothing installed. First, all of them put aside what came with the trip:
# shards in PACK (runs/pack), wheels in WHEELS (runs/wheels) and the built-in model, so that the next
# trip need not bring it again. WORK (/tmp/leg) is where that is kept; OUT (WORK/out) gets what is to
# come back, 8 files of at most 15 MiB each. PYTHON (python3) names the interpreter, DEVICE (cuda) where
# the network runs and CONFIG (benchmarks/gpu.yaml) the settings. Of the seconds of `train`, RESERVE (55)
# are for what comes before and after training; TRIAL_PICTURES (30720) are in an epoch of `trial`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} config=${CONFIG:-benchmarks/gpu.yaml}
device=${DEVICE:-cuda}
pack=${PACK:-runs/pack} wheels=${WHEELS:-runs/wheels}
work=${WORK:-/tmp/leg}
out=${OUT:-$work/out}
model=colordaemon/network/default.safetensors
data=$work/data run=$work/run
export PYTHONPATH=$PWD:$work/site PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$work/compiled

main() {
    case ${1:-} in
    trial | fill | train | keep | test) put_aside ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    case $1 in
    trial) trial ;;
    fill) fill ;;
    train) train "${2:-585}" ;;
    keep) ;;
    test) WHEELS="" PYTHON=$python DEVICE=$device benchmarks/gpu.sh "$out" "${@:2}" ;;
    esac
    say "done"
}

say() { echo "== $SECONDS s: $*"; }

stamped() { while IFS= read -r line; do echo "$SECONDS s: $line"; done; }

put_aside() {
    mkdir -p "$data" "$work/site" "$out"
    local file
    for file in "$pack"/*; do
        # A shard keeps the time of its first arrival, by which its decoded pictures are known.
        [ ! -e "$file" ] || cmp -s "$file" "$data/${file##*/}" || cp "$file" "$data/"
    done
    for file in "$wheels"/*.whl; do
        [ ! -e "$file" ] || "$python" -m zipfile --extract "$file" "$work/site"
    done
    if [ -e $model ]; then cp $model "$work/"; elif [ -e "$work/${model##*/}" ]; then
        cp "$work/${model##*/}" $model
    fi
    (cd "$data" && { [ ! -e SHA256SUMS ] || sha256sum --check --ignore-missing SHA256SUMS; })
    say "put aside"
}

trial() {
    ! command -v nvidia-smi || nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
    df -h "$work" /dev/shm
    sed -E -e 's/^( *minutes:).*/\1 2/' -e 's/^( *report_seconds:).*/\1 2/' \
        -e 's/^( *report_pictures:).*/\1 4/' \
        -e "s/^( *pictures_per_epoch:).*/\1 ${TRIAL_PICTURES:-30720}/" "$config" > "$work/trial.yaml"
    rm -rf "$work/trial"
    "$python" -m colordaemon train "$data" -o "$work/trial" --config "$work/trial.yaml" \
        --device "$device" --epochs 2 2>&1 | stamped
}

fill() {
    "$python" - "$data" "$config" << 'END'
import logging, sys
from pathlib import Path
from colordaemon.config_file import load_config
from colordaemon.training.train import collect_for

logging.basicConfig(level=logging.INFO, format="%(message)s")
print(collect_for(load_config(Path(sys.argv[2])).train, Path(sys.argv[1])).report()[:800])
END
}

# The whole run ends with this leg, whatever earlier ones have done of it.
train() {
    # All shards are there, unless PARTIAL=1 says that those which came will have to do.
    (cd "$data" && sha256sum --check --quiet ${PARTIAL:+--ignore-missing} SHA256SUMS)
    local status=0 stop=$(($1 - 20)) # to save a state, if it comes to that
    local minutes
    minutes=$("$python" -c "print(round(($1 - ${RESERVE:-55} - $SECONDS + $(trained)) / 60, 2))")
    say "training, $minutes minutes in all"
    timeout --signal=INT --kill-after=15 $((stop - SECONDS)) \
        "$python" -m colordaemon train "$data" -o "$run" --resume --config "$config" \
        --device "$device" --minutes "$minutes" 2>&1 | stamped | tee -a "$out/log.txt" || status=$?
    say "training ended with $status"
    bring_back
    case $status in
    124 | 130 | 137) say "stopped before its end; called again, it goes on" && exit 130 ;;
    *) return $status ;;
    esac
}

# Seconds that earlier legs have trained.
trained() {
    [ -e "$run/state.pt" ] || { echo 0 && return; }
    "$python" -c "import sys, torch
print(torch.load(sys.argv[1], mmap=True, weights_only=True)['counters']['seconds'])" \
        "$run/state.pt"
}

bring_back() {
    local sheet name
    if [ -e "$run/model.safetensors" ]; then
        rm -f "$out"/model.*
        split --bytes=15M --numeric-suffixes "$run/model.safetensors" "$out/model."
        (cd "$run" && sha256sum model.safetensors) > "$out/SHA256SUMS"
    fi
    for name in metrics.csv report.html model-card.md; do
        [ ! -e "$run/$name" ] || cp "$run/$name" "$out/"
    done
    for sheet in "$run"/contact-*.png; do
        [ ! -e "$sheet" ] || cp "$sheet" "$out/contact.png" # the last one stays
    done
    ls -l "$out"
}

main "$@"
