#!/usr/bin/env bash
# Makes .venv, installs what a run needs, plays the tiny game in it. Flags go on to the run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
prepare_environment "$root" requirements.txt
cd "$root"
exec .venv/bin/python launch/train.py --config=configs/tiny.py "$@"
