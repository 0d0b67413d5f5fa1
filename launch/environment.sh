#!/usr/bin/env bash
# Sourced by launch/quickstart.sh, tests/run.sh and .ci/run: one .venv in the checkout; and by
# launch/bench/prepare.sh: another one beside it.

# prepare_environment ROOT REQUIREMENTS...: makes ROOT/.venv and installs the files, once per content.
prepare_environment() {
  prepare_named .venv "$@"
}

# prepare_named NAME ROOT REQUIREMENTS...: the same in ROOT/NAME.
prepare_named() {
  local name=$1 root=$2 venv=$2/$1 python file stamp args=()
  shift 2
  if [ ! -e "$venv" ]; then
    python=$(find_python) || return 2
    echo "making $name with $("$python" --version)" >&2
    if ! "$python" -m venv "$venv"; then
      rm -rf "$venv"
      echo "error: $python cannot make a virtual environment; on Debian or Ubuntu:" \
        "apt install python3-venv" >&2
      return 2
    fi
  elif ! is_supported "$venv/bin/python" || ! "$venv/bin/python" -c 'import pip'; then
    echo "error: $venv holds no Python 3.11-3.13 with pip; remove it" \
      "(rm -rf '$venv') and run this again" >&2
    return 2
  fi
  stamp=$venv/installed-$(cd "$root" && cat "$@" | cksum | tr ' ' '-')
  if [ ! -e "$stamp" ]; then
    echo "installing $* into $name (minutes, the first time)" >&2
    for file; do
      args+=(-r "$root/$file")
    done
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${args[@]}" ||
      return 1
    touch "$stamp"
  fi
}

# The first Python that will do; PYTHON=... names another.
find_python() {
  local name
  for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
    if is_supported "$name"; then
      echo "$name"
      return
    fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 found (python3 is $(python3 --version 2>&1));" \
    "install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install" \
    "python@3.13) or name it: PYTHON=/path/to/python bash $0" >&2
  return 2
}

is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
