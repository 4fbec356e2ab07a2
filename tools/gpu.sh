#!/usr/bin/env bash
# Foveal on a GPU, in one command: tests, images per second, then training.
#
#   tools/gpu.sh [--device cuda|cpu] [--minutes N] [--out FOLDER] [--resume] [--train-only] [RECIPE ...]
#
# Always ends within N minutes (default 8). Tests and rates run first; the remaining time is
# divided equally among the recipes, which are names or files as for `foveal train`. An interrupted
# run keeps its last complete epoch. Each run is packed as FOLDER/RECIPE.tar, a single file to copy
# between machines; with --resume it is unpacked and resumed. FOLDER defaults to runs/gpu.
# --train-only skips tests and rates. The exit status is that of the first step that failed.
#
# Requires a checkout, no internet, and a python3 (or $PYTHON) with PyTorch 2.11 or later, numpy,
# pillow, pyarrow, safetensors, huggingface_hub, typer, rich, pyyaml and pytest; for training also
# lightning, torchmetrics and torchvision. Missing packages are taken from the folder $FOVEAL_SITE,
# which can be filled on a machine with internet access:
#   python3 -m pip install --no-deps --target site PACKAGE ...
# Named datasets are read from $FOVEAL_DATA.
set -uo pipefail

device=cuda minutes=8 out=runs/gpu resume= train_only= recipes=()
usage() { sed -n '2,/^set /{/^#/{s/^# \{0,1\}//;p}}' "$0"; }
while [ $# -gt 0 ]; do
    case $1 in
        --device | --minutes | --out)
            [ $# -gt 1 ] || { echo "Expected a value after $1." >&2; exit 2; }
            declare "${1#--}=$2"
            shift
            ;;
        --resume) resume=--resume ;;
        --train-only) train_only=yes ;;
        --help | -h) usage; exit 0 ;;
        -*) echo "Unknown option $1: see $0 --help." >&2; exit 2 ;;
        *) recipes+=("$1") ;;
    esac
    shift
done
case $device in cuda | cpu) ;; *) echo "Expected --device cuda or cpu, but got $device." >&2; exit 2 ;; esac
case $minutes in '' | *[!0-9]* | 0) echo "Expected --minutes as 1, 2, …, but got $minutes." >&2; exit 2 ;; esac

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$(command -v "$root/.venv/bin/python" || command -v python3)}
export PYTHONPATH="$root/src${FOVEAL_SITE:+:$FOVEAL_SITE}" PYTHONUNBUFFERED=1
[ "$device" = cuda ] || export CUDA_VISIBLE_DEVICES=
end=$((SECONDS + 60 * minutes)) failed=0

left() { echo $((end - SECONDS - $1)); } # remaining seconds, minus $1 in reserve

step() { # NAME MAX_SECONDS COMMAND…
    local name=$1 seconds=$2 status
    shift 2
    echo "== $name (at most $seconds s)"
    timeout --signal=TERM --kill-after=15 "$seconds" "$@"
    status=$?
    echo "== $name: status $status after $SECONDS s in total"
    [ "$failed" -ne 0 ] || failed=$status
    return "$status"
}

cd "$root" || exit 1
check='
import sys, torch
print(sys.version.split()[0], "torch", torch.__version__, "GPUs:", torch.cuda.device_count())
sys.exit(sys.argv[1] == "cuda" and not torch.cuda.is_available() and "Expected a GPU that torch can use, but found none.")
'
step "python" 90 "$python" -c "$check" "$device" || exit "$failed"

if [ -z "$train_only" ]; then
    quick=()
    [ "$device" = cuda ] || quick=(--seconds 0.1 --pixels 65536)
    step "tests" "$(left $((60 * minutes / 2)))" \
        "$python" -m pytest -q -p no:cacheprovider tests/gpu --device "$device"
    step "images per second" "$(left $((60 * minutes / 3)))" \
        "$python" benchmarks/performance/gpu.py --device "$device" "${quick[@]}"
fi

mkdir -p "$out" || exit 1
count=${#recipes[@]}
for recipe in "${recipes[@]}"; do
    name=$(basename "$recipe" .yaml)
    if [ -n "$resume" ] && [ -f "$out/$name.tar" ]; then
        rm -rf "${out:?}/$name" && tar -xf "$out/$name.tar" -C "$out" || exit 1
    fi
    seconds=$(($(left 20) / count)) # 20 seconds are reserved for writing and packing
    count=$((count - 1))
    [ "$seconds" -gt 0 ] || { echo "No time is left for $recipe." >&2; failed=1; continue; }
    before=$failed
    step "train $recipe" "$seconds" "$python" -m foveal train "$recipe" --out "$out/$name" \
        --devices 1 --quiet $resume
    if [ $? -eq 124 ]; then # out of time, which is not a failure
        failed=$before
        echo "$recipe is not finished: pass --resume to continue."
    fi
    [ ! -d "$out/$name" ] || tar -cf "$out/$name.tar" -C "$out" "$name" || failed=1
done
exit "$failed"
