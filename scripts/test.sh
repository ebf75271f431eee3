#!/usr/bin/env bash
# Makes .venv with the test extra, then lint, types and tests. Arguments go to pytest: bash scripts/test.sh -k fit
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test

ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"
