#!/usr/bin/env bash
# Trains on every worker of a Cloud TPU VM, from a laptop or from one of the workers. Needs gcloud.
#
#   launch/tpu_pod.sh --name=my-pod --zone=us-east5-a --setup -- \
#       --config=configs/qwen4b.py:v6e --workdir=gs://my-bucket/qwen4b
#
#   --name, --zone         the TPU VM; --project=ID where it is not gcloud's own
#   --setup                copy this checkout to every worker and install what it needs there
#   --repo=URL --ref=REF   with --setup: clone this instead of copying
#   --internal_ip          reach the workers inside their network (from a worker: always)
#   --restarts=N           how often to start again after exit code 75 (default 50)
#   --dry_run              print the commands, run none
#   after --               flags of launch/train.py; none: only --setup is done
#
# The output of worker 0 is shown; that of all is kept in tpu_pod_logs/NAME/. The run does not hang
# on the connection: the same command finds it again. Ctrl-C asks it to stop and save.
#
# Exit codes: 0 done; 1 and 2 as launch/train.py; 75 stopped, the same command goes on. Whatever else
# ends a worker is a lost process, and all of them are started again.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly PLACE=seirenes_jax # the checkout on a worker, in its home folder
readonly STATE=.tpu_pod     # there: pid, output and exit code of the process
readonly LASTING_S=900      # a run that lasted so long was healthy: the count of restarts begins anew
readonly LONGEST_WAIT_S=300

die() {
  echo "error: $*" >&2
  exit 2
}

main() {
  local name='' zone='' project='' setup='' repo='' ref='' internal='' restarts=50 flag
  dry_run='' wait_s=${TPU_POD_WAIT_S:-10}
  while [ $# -gt 0 ]; do
    flag=$1
    shift
    case $flag in
    --name=*) name=${flag#*=} ;;
    --zone=*) zone=${flag#*=} ;;
    --project=*) project=${flag#*=} ;;
    --repo=*) repo=${flag#*=} ;;
    --ref=*) ref=${flag#*=} ;;
    --restarts=*) restarts=${flag#*=} ;;
    --setup) setup=yes ;;
    --internal_ip) internal=yes ;;
    --dry_run) dry_run=yes ;;
    --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" && exit 0 ;;
    --) break ;;
    *) die "$flag: no such flag (flags of launch/train.py come after --)" ;;
    esac
  done
  [ -n "$name" ] && [ -n "$zone" ] || die "wanted --name=NAME and --zone=ZONE (--help)"
  [[ $restarts =~ ^[0-9]+$ ]] || die "--restarts: got '$restarts'; wanted a number"
  [ -z "$repo$ref" ] || [ -n "$repo$setup" ] || die "--ref: wanted --setup --repo=URL beside it"
  [ -n "$setup" ] || [ $# -gt 0 ] || die "nothing to do: wanted --setup, or flags after --"
  [ -n "$dry_run" ] || command -v gcloud >/dev/null || die "gcloud is not installed (or not on PATH)"
  where=("$name" "--zone=$zone" --worker=all --quiet)
  [ -z "$project" ] || where+=("--project=$project")
  { [ -z "$internal" ] && [ ! -e /dev/accel0 ] && [ ! -e /dev/vfio/0 ]; } || where+=(--internal-ip)
  logs=tpu_pod_logs/$name
  if [ -n "$setup" ]; then
    set_up "$repo" "$ref" || exit 1
  fi
  [ $# -eq 0 ] || drive "$restarts" "$@"
}

# Runs a command, or prints it.
call() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

set_up() { # REPO REF
  local get pack
  if [ -n "$1" ]; then
    get="git clone --quiet $(printf %q "$1") $PLACE.new && git -C $PLACE.new checkout --quiet"
    get+=" $(printf %q "${2:-HEAD}")"
  else
    pack=${TMPDIR:-/tmp}/seirenes_jax-$$.tgz
    call pack_checkout "$pack" || return 1
    call gcloud compute tpus tpu-vm scp "$pack" "${where[0]}:seirenes_jax.tgz" "${where[@]:1}" \
      --batch-size=all || return 1
    call rm -f "$pack"
    get="mkdir $PLACE.new && tar -xzf seirenes_jax.tgz -C $PLACE.new"
  fi
  # What was installed before stays, and so does what a worker runs at the moment.
  get="rm -rf $PLACE.new && $get && mkdir -p $PLACE && cp -a $PLACE.new/. $PLACE && rm -rf $PLACE.new"
  on_all "$get && bash $PLACE/launch/tpu_pod.sh --on_worker install"
}

pack_checkout() { # FILE
  (cd "$root" && git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [ ! -e "$file" ] || printf '%s\0' "$file"
    done | tar -czf "$1" --null -T -)
}

on_all() { # COMMAND [FLAG...]
  call gcloud compute tpus tpu-vm ssh "${where[@]}" --batch-size=all "${@:2}" --command="$1"
}

# Start the run, or find it again, until it is over.
drive() { # RESTARTS FLAGS...
  local left=$1 limit=$1 began code pause=$wait_s command stopping=''
  shift
  command="bash $PLACE/launch/tpu_pod.sh --on_worker run $(printf '%q ' "$@")"
  if [ -n "$dry_run" ]; then
    call mkdir -p "$logs"
    on_all "$command" --output-directory="$logs"
    return
  fi
  mkdir -p "$logs" || exit 1
  trap 'stopping=yes; echo "asking all workers to stop" >&2; on_all "$(stop_command)" &' INT TERM
  while :; do
    began=$SECONDS
    follow "$command"
    code=$(verdict "$logs"/*.log)
    case $code in
    0 | 1 | 2) exit "$code" ;;
    esac
    [ -z "$stopping" ] || exit 75
    if [ $((SECONDS - began)) -ge $LASTING_S ]; then
      left=$limit pause=$wait_s
    fi
    if [ "$left" -le 0 ]; then
      echo "started again $limit times, none of them lasted; see $logs" >&2
      exit 75
    fi
    left=$((left - 1))
    echo "exit code $code; starting again in $pause s ($left more times)" >&2
    sleep "$pause" & # `wait` is left at once when a signal comes
    wait $!
    [ -z "$stopping" ] || exit 75
    pause=$((pause * 2 < LONGEST_WAIT_S ? pause * 2 : LONGEST_WAIT_S))
  done
}

stop_command() { echo "bash $PLACE/launch/tpu_pod.sh --on_worker stop"; }

# One connection to all workers; what worker 0 says is shown.
follow() { # COMMAND
  local workers shown
  rm -f "$logs"/*.log
  : >"$logs/0.log"
  tail -n +1 -f "$logs/0.log" &
  shown=$!
  on_all "$1" --output-directory="$logs" &
  workers=$!
  until ended "$workers"; do :; done
  sleep 1 # the last lines
  kill "$shown" 2>/dev/null
  wait "$shown" 2>/dev/null
}

# Waits; a signal that is handled meanwhile wakes it early.
ended() { # PID
  wait "$1"
  ! kill -0 "$1" 2>/dev/null
}

# What the workers' last words make together: a failure that a restart cannot mend, else a lost one.
verdict() { # LOG...
  local log code found=0
  for log; do
    code=$(sed -n 's/^tpu_pod: exit code \([0-9]*\)$/\1/p' "$log" | tail -n 1)
    case $code in
    0) ;;
    1 | 2)
      echo "$code"
      return
      ;;
    *) found=75 ;;
    esac
  done
  echo "$found"
}

# --- on a worker, called through ssh

on_worker() { # install | run FLAGS... | stop
  cd "$root" || exit 1
  local what=$1 code
  shift
  mkdir -p "$STATE"
  case $what in
  install)
    # shellcheck source=launch/environment.sh
    . launch/environment.sh
    if ! find_python >/dev/null 2>&1; then
      sudo apt-get -qq update && sudo apt-get -qq install python3.11 python3.11-venv || return 1
    fi
    prepare_environment "$root" requirements.txt launch/tpu_requirements.txt
    ;;
  run)
    if ! running; then
      printf '%q ' "$@" >"$STATE/flags"
      rm -f "$STATE/code"
      : >"$STATE/output" # here, not by the process below: it may come later than `tail`
      # Of its own session: it outlives the connection.
      setsid nohup bash "$root/launch/tpu_pod.sh" --on_worker work "$@" >>"$STATE/output" 2>&1 \
        </dev/null &
      echo $! >"$STATE/pid"
    elif [ "$(cat "$STATE/flags")" != "$(printf '%q ' "$@")" ]; then
      echo "another run goes on here, with the flags $(cat "$STATE/flags"): Ctrl-C its tpu_pod.sh" \
        "or wait for it"
      echo "tpu_pod: exit code 2"
      return
    fi
    tail -n +1 -f --pid="$(cat "$STATE/pid")" "$STATE/output"
    code=$(cat "$STATE/code" 2>/dev/null)
    echo "tpu_pod: exit code ${code:-137}"
    ;;
  work)
    .venv/bin/python launch/train.py --coordinator=auto "$@" &
    echo $! >"$STATE/training"
    wait $!
    code=$?
    echo "$code" >"$STATE/code"
    ;;
  stop)
    ! running || kill -TERM "$(cat "$STATE/training")"
    ;;
  esac
}

# A number may have gone to another process since, say after a reboot.
running() { [ -s "$STATE/pid" ] && ps -p "$(cat "$STATE/pid")" -o args= | grep -q on_worker; }

if [ "${1:-}" = --on_worker ]; then
  shift
  on_worker "$@"
else
  main "$@"
fi
