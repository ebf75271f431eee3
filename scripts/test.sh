#!/usr/bin/env bash
# Makes .venv with the test extra, then checks style and types and runs the tests, in as many processes as there are cores.
# Arguments go to pytest:
#   bash scripts/test.sh -k fit
#   bash scripts/test.sh --runslow           the whole matrices of kills and faults, not a sample of them
#   bash scripts/test.sh --system-packages   installs Slurm and Chromium first (Debian, as root); without them their tests skip
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
for argument in "$@"; do
    if [ "$argument" = --system-packages ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update >/dev/null
        apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge chromium >/dev/null
    else
        arguments+=("$argument")
    fi
done

source scripts/environment.sh test
ruff check .
ruff format --check .
mypy
exec python -m pytest --numprocesses=logical --maxprocesses=8 --no-loadscope-reorder ${arguments[@]+"${arguments[@]}"}
