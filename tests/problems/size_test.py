"""The largest data set there is: 1.79 M rows, each question about a hundred times."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.problems import made

ROOT = Path(__file__).parents[2]
ROWS, QUESTIONS = 1_791_700, 17_398
AT_ONCE = 100_000
WORDS = (
    "let find number real integer triangle such that sum positive prime circle term angle".split()
)


def write(file: Path) -> None:
    """Rows of DAPO's schema, shuffled; some 600 characters a prompt."""
    draw = random.Random(0)
    rows = [
        made.dapo(f"{' '.join(draw.choices(WORDS, k=60))} in case {n}?", str(draw.randrange(1000)))
        for n in range(QUESTIONS)
    ]
    schema = pa.Table.from_pylist(rows[:1]).schema
    with parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, ROWS, AT_ONCE):
            some = draw.choices(rows, k=min(AT_ONCE, ROWS - start))
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


MEASURED = """
import re, sys, time
from pathlib import Path
from seirenes_jax.problems.__main__ import main
main(sys.argv[1:])
print(round(time.process_time(), 1))
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""  # VmHWM: ru_maxrss would count the process that started this one


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="its peak memory is read from /proc")
def test_the_largest_data_set_is_made_unique_in_seconds_and_in_little_memory(
    tmp_path: Path,
) -> None:
    file = tmp_path / "dapo.parquet"
    write(file)
    told = subprocess.run(
        [sys.executable, "-c", MEASURED, str(file)], cwd=ROOT, text=True, check=True,
        stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    *said, seconds, peak = told.split("\n")[:-1]
    print(f"{ROWS:,} rows of {file.stat().st_size >> 20} MiB: {seconds} CPU s, {peak} MiB")
    assert "  read                          1,791,700" in said
    assert "  left                             17,398" in said
    assert float(seconds) < 120 and int(peak) < 600
