#!/usr/bin/env bash
# Makes .venv with the test extra, then lint, types and tests. Arguments go to pytest: bash scripts/test.sh -k fit
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test

export DEBIAN_FRONTEND=noninteractive
# Some tests start a Slurm of their own, and skip where there is none. As root on Debian, a container that is, it is installed first.
if [ "$EUID" = 0 ] && command -v apt-get >/dev/null && ! command -v slurmctld >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge; } >/dev/null ||
        echo "Slurm could not be installed; its tests will skip" >&2
fi

# Others look at the report in a headless Chromium.
if [ "$EUID" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } >/dev/null ||
        echo "Chromium could not be installed; its tests will skip" >&2
fi

ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"
