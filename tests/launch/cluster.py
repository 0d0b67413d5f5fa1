"""Clusters made of shell scripts: gcloud, srun and scontrol that run everything on this machine.

Every call is recorded. A worker is a folder; its python is a script that the test writes, so that
what a launcher does with an exit code is seen in a second.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

GCLOUD = r"""
echo "gcloud $*" >>"$CLUSTER/calls"
name=$5 out='' command='' file=''
for word; do
  case $word in
  --output-directory=*) out=${word#*=} ;;
  --command=*) command=${word#*=} ;;
  *.tgz) file=$word ;;
  esac
done
if [ "$4" = scp ]; then
  for home in "$CLUSTER"/worker*; do cp "$5" "$home/${6#*:}"; done
  exit
fi
pids=()
for home in "$CLUSTER"/worker*; do
  index=${home##*worker}
  (cd "$home" && WORKER=$index HOME=$home exec bash -c "$command") \
    >"${out:+$PWD/}${out:-$CLUSTER/said}${out:+/$index.log}" 2>&1 &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"""

SRUN = r"""
echo "srun $*" >>"$CLUSTER/calls"
while [[ $1 == --* ]]; do shift; done
pids=()
for index in 0 1; do
  SLURM_PROCID=$index WORKER=$index "$@" &
  pids+=($!)
done
trap 'for pid in "${pids[@]}"; do kill -s USR1 "$pid"; done' USR1
worst=0
for pid in "${pids[@]}"; do
  until wait "$pid"; code=$?; ! kill -0 "$pid" 2>/dev/null; do :; done
  ((code > worst)) && worst=$code
done
exit $worst
"""

SCONTROL = 'echo "scontrol $*" >>"$CLUSTER/calls"'

# What stands for training: says its flags, ends with the next code of its list.
TRAINING = r"""
case "$*" in
*launch/train.py*) ;;
*) echo "python$WORKER $*" >>"$CLUSTER/calls"; exit 0 ;;
esac
echo "train$WORKER $* devices=${JAX_LOCAL_DEVICE_IDS:-}" >>"$CLUSTER/calls"
echo "worker $WORKER learns"
codes=$CLUSTER/codes$WORKER
code=$(head -n 1 "$codes"); sed -i 1d "$codes"
if [ "$code" = waits ]; then
  code=75
  trap 'echo stopped; over=yes' TERM USR1
  touch "$CLUSTER/waiting$WORKER"
  for _ in {1..600}; do [ -n "${over:-}" ] && break; sleep 0.1; done
fi
exit "${code:-0}"
"""


class Cluster:
    """Workers that are folders of this machine."""

    def __init__(self, folder: Path, *codes: str) -> None:
        """`codes`: what each worker's training ends with, one word a start."""
        self.folder = folder
        (folder / "calls").touch()
        for name, text in {"gcloud": GCLOUD, "srun": SRUN, "scontrol": SCONTROL}.items():
            script(folder / "bin" / name, text)
        for index, its in enumerate(codes):
            (folder / f"codes{index}").write_text(its.replace(" ", "\n") + "\n")
            (folder / f"worker{index}").mkdir()

    def checkout(self, index: int, python: str = TRAINING) -> Path:
        """A worker's checkout as --setup leaves it."""
        place = self.folder / f"worker{index}" / "seirenes_jax"
        shutil.copytree(ROOT / "launch", place / "launch", ignore=shutil.ignore_patterns("__*"))
        for name in ("seirenes_jax", "configs"):
            (place / name).symlink_to(ROOT / name)
        script(place / ".venv" / "bin" / "python", python)
        return place

    def environment(self, **more: str) -> dict[str, str]:
        outside = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        path = f"{self.folder / 'bin'}:{outside['PATH']}"
        return outside | {"PATH": path, "CLUSTER": str(self.folder), "TPU_POD_WAIT_S": "0"} | more

    def start(self, *command: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", *command], cwd=cwd or self.folder, env=self.environment(**more), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*command, cwd=cwd, **more)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def calls(self, word: str) -> list[str]:
        """Recorded calls that begin with this word."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] == word]


def script(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/usr/bin/env bash" + text if text.startswith("\n") else
                    "#!/usr/bin/env bash\n" + text + "\n")  # fmt: skip
    file.chmod(0o755)


# A python that is the real one, each worker one process of a run on this machine.
REAL = f"""
args=()
for word; do
  case $word in
  --coordinator=auto) args+=("--coordinator=localhost:$PORT" --processes=2 --process="$WORKER") ;;
  *) args+=("$word") ;;
  esac
done
exec {sys.executable} "${{args[@]}}"
"""
