#!/usr/bin/env bash
# The GPU tests, then the table of scripts/bench_gpu.py with the most useful rows first, in ten minutes. If it is stopped early, OUT
# holds what was measured until then. It needs torch with CUDA and the packages of pyproject.toml, and installs nothing.
#   OUT=results/throughput-gpu bash scripts/bench_gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-results/throughput-gpu}
mkdir -p "$OUT"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$OUT/gpu.csv"
# A test that hangs prints where it does, and the rest goes on; the plugins of CI are not needed.
python -m pytest -q -m gpu -p no:cacheprovider -o addopts= -o faulthandler_timeout=120 2>&1 | tee "$OUT/tests.log"
python scripts/bench_gpu.py --out "$OUT" --seconds 320 2>&1 | tee "$OUT/bench.log"
