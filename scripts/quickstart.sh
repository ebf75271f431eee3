#!/usr/bin/env bash
# A real IsoFLOP valley on this machine's CPU: makes .venv, trains the smoke sweep, fits it and draws it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh train

isosweep plan experiment=smoke
isosweep launch experiment=smoke
isosweep fit experiment=smoke
isosweep plot experiment=smoke

echo
echo "The IsoFLOP valley:  $PWD/store/sweeps/smoke/isoflop.png"
echo "The curves' envelope: $PWD/store/sweeps/smoke/envelope.png"
echo "The fitted surface:  $PWD/store/sweeps/smoke/parametric.png"
echo "Next:  source .venv/bin/activate && isosweep --help"
