#!/usr/bin/env bash
# A GPU sweep in pieces, for a machine that is available for minutes at a time. It unpacks STORE_ARCHIVE if that exists, launches
# for LIMIT seconds, draws the finished runs, and writes OUT/store.tar.gz (the runs, and the checkpoints of unfinished ones), which
# is the STORE_ARCHIVE of the next call. Arguments are overrides; docs/gpu.md says how to make python.txt.
#   OUT=/tmp/out LIMIT=480 bash scripts/sweep_gpu.sh experiment=gpu 'data.paths=[python.txt]'
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/gpu} LIMIT=${LIMIT:-480} STORE_ARCHIVE=${STORE_ARCHIVE:-store.tar.gz} STORE=${STORE:-/tmp/isosweep-store}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$OUT" "$STORE"
if [ -f "$STORE_ARCHIVE" ]; then tar -xzf "$STORE_ARCHIVE" -C "$STORE"; fi
timeout --foreground --signal=TERM --kill-after=60 "$LIMIT" python -m sweep launch "$@" store="$STORE" | tee "$OUT/launch.log"
python -m sweep plot "$@" store="$STORE" out="$OUT/fits" | tee "$OUT/fits.log"
exclude=(--exclude=./corpora --exclude=./compiled)
for run in "$STORE"/runs/*/; do # the weights of finished runs do not travel, but stay in the store
    if grep -q '"state": "done"' "$run/status.json" 2>/dev/null; then exclude+=(--exclude="./runs/$(basename "$run")/checkpoint"); fi
done
tar -czf "$OUT/store.tar.gz" "${exclude[@]}" -C "$STORE" .
