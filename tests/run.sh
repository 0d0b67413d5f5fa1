#!/usr/bin/env bash
# Makes .venv, installs what the tests need, runs the suite. Flags go on to pytest:
#   bash tests/run.sh -m long        the long tests, which are left out otherwise
#   bash tests/run.sh tests/games    a part
# With CI=true a test that skips for want of something installable is a failure.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
prepare_environment "$root" requirements.txt tests/requirements.txt
cd "$root"
if [ "${CI:-}" = true ]; then
  set -- -p tests.no_skips "$@"
fi
exec .venv/bin/python -m pytest -q "$@"
