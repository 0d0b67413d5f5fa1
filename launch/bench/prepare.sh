#!/usr/bin/env bash
# Makes .venv-bench, with the systems that launch/bench.py compares ours with. On Linux PyPI's torch
# brings CUDA along; the CPU build is much smaller and all that is needed:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash launch/bench/prepare.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
prepare_named .venv-bench "$root" launch/bench_requirements.txt
