#!/usr/bin/env bash
# Makes .venv with the test extra, then runs lint, type check and tests. Arguments go to pytest: bash scripts/test.sh -k fit
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test

export DEBIAN_FRONTEND=noninteractive
# Some tests start their own Slurm, and skip if it is not installed. As root on Debian (in a container) it is installed first.
if [ "$EUID" = 0 ] && command -v apt-get >/dev/null && ! command -v slurmctld >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge; } >/dev/null ||
        echo "Slurm could not be installed; its tests are skipped" >&2
fi

# Other tests open the report in a headless Chromium.
if [ "$EUID" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } >/dev/null ||
        echo "Chromium could not be installed; its tests are skipped" >&2
fi

ruff check .
ruff format --check .
mypy
exec python -m pytest "$@"
