"""The end of a run: after against before, the export, the report, the table."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from seirenes_jax import hf, machine
from seirenes_jax.clock import Clock
from seirenes_jax.evaluate import Evaluator, scores
from seirenes_jax.hosts import first, writes
from seirenes_jax.knobs import Settings
from seirenes_jax.layout import LayOut
from seirenes_jax.mirror import Mirror
from seirenes_jax.models import join
from seirenes_jax.progress import Progress
from seirenes_jax.report import RunLog, before_after_table, write_json
from seirenes_jax.report_page import write_report
from seirenes_jax.start import Start
from seirenes_jax.state import Params
from seirenes_jax.store import Folder

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def finish(
    evaluator: Evaluator, params: Params, progress: Progress, *, settings: Settings, log: RunLog,
    start: Start, clock: Clock, lay_out: LayOut, mirror: Mirror, base: Params | None,
) -> dict[str, Any]:  # fmt: skip
    """Measure, export, write summary.json and report.html; returns the summary.

    An end that was reached before is not measured again.
    """
    folder, weights = log.folder, mirror.home / "hf"
    measured = progress.before["marks"]
    n = min(settings.eval.final_problems, len(measured["clean"]))  # the same before and after
    before = {name: marks[:n] for name, marks in measured.items()}
    summary: dict[str, Any] = json.loads(first(
        lambda: json.dumps(_reached_before(folder, weights, progress.step, n))
    ))  # fmt: skip
    if not summary:
        if n != settings.eval.final_problems:
            log.say(f"eval.final_problems: before was measured on {n}, so after is as well")
        with clock("eval", evaluator.sampler.waits_for):
            after, _ = evaluator.everything(lay_out(params), progress.start_hints, n)
        progress.tokens["eval"] += evaluator.spent()
        with clock("export"):
            hf.export(
                join(base, params), start.config, weights, tokenizer=start.tokenizer,
                dtype=settings.model.param_dtype,
            )  # fmt: skip
        summary = {
            "steps": progress.step, "before": scores(before, start.rare),
            "after": scores(after, start.rare), "n_problems": n, **_spent(progress, clock),
        }  # fmt: skip
        if writes():
            ids = [problem.id for problem in start.held_out[:n]]
            write_json(
                folder / "eval.json", {"problem_ids": ids, "before": before, "after": after}
            )
            write_json(folder / "summary.json", summary)
            log.event(f"finished after step {progress.step}")
    if writes():
        report = write_report(folder)
        log.say("\n" + before_after_table(summary))
        log.say(f"\nreport: {report}\nmodel:  {weights}")
        mirror.send()
    evaluator.hosts.agree(False)  # nobody leaves before the writer is done
    return summary


def _reached_before(folder: Path, weights: Folder, step: int, n: int) -> dict[str, Any]:
    """The summary of this very end, where all that comes with it is there; else nothing."""
    file = folder / "summary.json"
    if not (file.is_file() and (weights / "config.json").is_file()):
        return {}
    try:
        summary: dict[str, Any] = json.loads(file.read_text())
    except ValueError:
        return {}  # it is written anew
    return summary if (summary["steps"], summary["n_problems"]) == (step, n) else {}


def _spent(progress: Progress, clock: Clock) -> dict[str, Any]:
    """What it took, and on what."""
    lap, _ = clock.lap()
    seconds = {
        phase: progress.seconds.get(phase, 0.0) + lap.get(phase, 0.0)
        for phase in (*lap, *progress.seconds)
    }
    device = jax.devices()[0]
    return {
        "seconds": seconds.pop("step"), "seconds_by_phase": seconds,
        "peak_rss_gib": machine.peak_rss_gib(), "tokens": progress.tokens, "best": progress.best,
        "versions": {name: version(name) for name in PACKAGES} | {"python": sys.version.split()[0]},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "command": " ".join(sys.argv),
    }  # fmt: skip
