"""The end of a run: after against before, the export, the report, the table."""

import sys
from importlib.metadata import version
from typing import Any

import jax

from seirenes_jax import hf
from seirenes_jax.clock import Clock, peak_rss_gib
from seirenes_jax.evaluate import Evaluator, scores
from seirenes_jax.knobs import Settings
from seirenes_jax.progress import Progress
from seirenes_jax.report import RunLog, before_after_table, write_json
from seirenes_jax.report_page import write_report
from seirenes_jax.start import Start
from seirenes_jax.state import Params

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def finish(
    evaluator: Evaluator, params: Params, progress: Progress, *, settings: Settings, log: RunLog,
    start: Start, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    """Measure, export, write summary.json and report.html; returns the summary."""
    folder = log.folder
    with clock("eval"):
        marks, _ = evaluator.everything(
            params, progress.start_hints, settings.eval.final_problems
        )
    progress.tokens["eval"] += evaluator.spent()
    with clock("export"):
        hf.export(
            params, start.config, folder / "hf", tokenizer=start.tokenizer,
            dtype=settings.model.param_dtype,
        )  # fmt: skip
    write_json(folder / "eval.json", {
        "problem_ids": [p.id for p in start.held_out[: settings.eval.final_problems]],
        "before": progress.before["marks"], "after": marks,
    })  # fmt: skip
    seconds, _ = clock.lap()
    spent = {k: progress.seconds.get(k, 0.0) + v for k, v in seconds.items()}
    for phase in ({*progress.seconds} - {*seconds}):
        spent[phase] = progress.seconds[phase]
    device = jax.devices()[0]
    summary = {
        "steps": progress.step, "before": progress.before["scores"],
        "after": scores(marks, start.rare), "n_problems": settings.eval.final_problems,
        "seconds": spent.pop("step", 0.0), "seconds_by_phase": spent,
        "peak_rss_gib": peak_rss_gib(), "tokens": progress.tokens, "best": progress.best,
        "versions": {name: version(name) for name in PACKAGES} | {"python": sys.version.split()[0]},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "command": " ".join(sys.argv),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    report = write_report(folder)
    log.event(f"finished after step {progress.step}")
    log.say("\n" + before_after_table(summary))
    log.say(f"\nreport: {report}\nmodel:  {folder / 'hf'}")
    return summary
