#!/usr/bin/env bash
# The GPU tests, then the table of scripts/bench_gpu.py with the most important rows first, in under nine minutes. If it is stopped
# early, OUT holds what was measured until then. It needs torch with CUDA and the packages of pyproject.toml, and installs nothing.
#   OUT=results/throughput-gpu bash scripts/bench_gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/throughput-gpu}
mkdir -p "$OUT"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/isosweep-compiled}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$OUT/gpu.csv"
timeout 170 python -m pytest -q -m gpu -p no:cacheprovider 2>&1 | tee "$OUT/tests.log"
timeout 360 python scripts/bench_gpu.py --out "$OUT" --seconds 320 2>&1 | tee "$OUT/bench.log"
