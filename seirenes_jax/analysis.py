"""Run folders -> numbers, tables and curves. No jax: notebooks, reports and `eval/` read runs here.

The one place of the bootstrap, the paired t-interval and pass@k.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from seirenes_jax.errors import DataError

MOST_INSIDE = 5  # lines whose legend finds room in a panel
LEAST_SPAN = 0.1  # of an axis in percent
OKABE_ITO = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#7A7A7A", "#F0E442",
)  # fmt: skip
STYLE: Any = MappingProxyType({
    "font.family": "sans-serif", "font.size": 9,
    "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.6,
    "savefig.dpi": 200, "pdf.fonttype": 42, "svg.fonttype": "none",
})  # fmt: skip


# ---- reading a run folder


def iter_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl file; a missing file has none, a torn last line is not a row."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # being written, or torn by a kill
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: got {line[:60]!r}, not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: got {line[:60]!r}; wanted a JSON object")
            yield row


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """One row a step."""
    return list(iter_lines(Path(folder) / "metrics.jsonl"))


def read_rollouts(folder: Path) -> list[dict[str, Any]]:
    """One row a sampled problem."""
    return list(iter_lines(Path(folder) / "rollouts.jsonl"))


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None while there is none."""
    return read_object(Path(folder) / "summary.json")


def read_config(folder: Path) -> dict[str, Any] | None:
    """The config as the run stored it; None where there is none."""
    return read_object(Path(folder) / "config.json")


def read_object(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}; restore or remove the file") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: got {type(value).__name__}; wanted a JSON object")
    return value


Curve = tuple[list[int], list[float]]


def curve(rows: Sequence[Mapping[str, Any]], path: str) -> Curve:
    """(steps, values) of a dotted key such as `live.clean`, without steps where it is null."""
    steps, values = [], []
    for row in rows:
        value: Any = row
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)):
            steps.append(int(row["step"]))
            values.append(float(value))
    return steps, values


# ---- how sure


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; infinite where there are too few values to say."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], *, seed: int = 0, draws: int = 4000, level: float = 0.95
) -> Interval:
    """Mean with a percentile interval, drawing whole entries (one per problem) with replacement."""
    sample = np.asarray(values, np.float64)
    if sample.size == 0:
        raise DataError("bootstrap: got no values; wanted at least one")
    random = np.random.default_rng(seed)
    means = [
        sample[random.integers(0, sample.size, sample.size)].mean() for _ in range(draws)
    ]  # a row at a time: the matrix of all draws would not fit for large sets
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), sample.size)


def paired_bootstrap(
    after: Sequence[float], before: Sequence[float], *, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean of after - before, interval over problems; entry i of both is the same problem."""
    return bootstrap(_differences(after, before).tolist(), seed=seed, level=level)


def paired_t(
    after: Sequence[float], before: Sequence[float], *, level: float = 0.95
) -> tuple[Interval, float]:
    """Mean of after - before over seeds with its t-interval, and the two-sided p of no gap."""
    gaps = _differences(after, before)
    n, mean = gaps.size, float(gaps.mean())
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n), 1.0
    error = float(gaps.std(ddof=1)) / math.sqrt(n)
    reach = error * float(stdtrit(n - 1, (1 + level) / 2))
    if error == 0.0:
        return Interval(mean, mean, mean, n), 1.0 if mean == 0.0 else 0.0
    p = 2.0 * float(stdtr(n - 1, -abs(mean) / error))
    return Interval(mean, mean - reach, mean + reach, n), p


def sign_flip(
    after: Sequence[float], before: Sequence[float], *, seed: int = 0, draws: int = 20_000
) -> float:
    """Two-sided p of no gap over paired problems: how often random signs reach as far.

    Assumes nothing of the distribution of gaps; never 0, the observed signs are one of the draws.
    """
    gaps = _differences(after, before)
    gaps = gaps[gaps != 0.0]  # a sign changes nothing there
    random = np.random.default_rng(seed)
    reached, chunk = 1, max(1, min(draws, 4_000_000 // max(1, gaps.size)))
    for start in range(0, draws, chunk):
        signs = random.integers(0, 2, (min(chunk, draws - start), gaps.size), np.int8) * 2 - 1
        reached += int((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9).sum())
    return reached / (draws + 1)


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979), in their order."""
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    corrected = [0.0] * len(chances)
    most = 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(chances) - rank) * chances[i]))
        corrected[i] = most
    return corrected


def _differences(after: Sequence[float], before: Sequence[float]) -> np.ndarray:
    if len(after) != len(before) or not after:
        raise DataError(
            f"paired comparison: got {len(after)} and {len(before)} values; wanted as many of "
            "each, in the same order, and at least one"
        )
    return np.asarray(after, np.float64) - np.asarray(before, np.float64)


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that one of k tries is right, unbiased: 1 - C(n - right, k) / C(n, k)."""
    if not 0 <= right <= n or not 1 <= k <= n:
        raise DataError(f"pass@{k}: got {right} right of {n}; wanted 1 <= k <= n, 0 <= right <= n")
    wrong = n - right
    return 1.0 - math.comb(wrong, k) / math.comb(n, k)


# ---- hints


def share_right(tries: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of right answers among those that were judged; None where none was."""
    verdicts = [t["verdict"] for t in tries if t["verdict"] in ("right", "wrong")]
    return verdicts.count("right") / len(verdicts) if verdicts else None


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams of words over all of them; 1 = nothing is said twice. None without any."""
    grams = [
        tuple(words[i : i + n])
        for words in (text.lower().split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else None


def by_window(
    rows: Sequence[Mapping[str, Any]], windows: int
) -> list[tuple[float, list[Mapping[str, Any]]]]:
    """Rows in at most so many equal spans of steps: (middle step, rows), empty spans left out."""
    if not rows:
        return []
    first, last = rows[0]["step"], rows[-1]["step"]
    width = max(1, math.ceil((last - first + 1) / windows))
    spans: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        spans.setdefault((row["step"] - first) // width, []).append(row)
    return [((one[0]["step"] + one[-1]["step"]) / 2, one) for _, one in sorted(spans.items())]


def family_shares(
    rows: Sequence[Mapping[str, Any]], windows: int = 40
) -> tuple[list[float], dict[str, list[float]]]:
    """How the adversary's taste moves: (middle steps, {family: share of hints}), summing to 1.

    Of metrics rows, which count every hint of a step, or of the sample in rollouts.jsonl.
    """
    steps: list[float] = []
    counts: list[Counter[str]] = []
    for step, span in by_window(rows, windows):
        count = Counter[str]()
        for row in span:
            told = row.get("families")
            count.update(told if told is not None else [h["family"] for h in row.get("hints", ())])
        if count:
            steps.append(step)
            counts.append(count)
    total = sum(counts, Counter[str]())
    names = sorted(total, key=lambda name: (-total[name], name))
    return steps, {name: [c[name] / c.total() for c in counts] for name in names}


def hint_statistics(
    rollouts: Sequence[Mapping[str, Any]], windows: int = 40
) -> list[dict[str, float | None]]:
    """By window: hints, words a hint, distinct-1 and -2, repeated, gated, mean drop."""
    found: list[dict[str, float | None]] = []
    for step, rows in by_window(rollouts, windows):
        hints = [hint for row in rows for hint in row["hints"]]
        if not hints:
            continue
        texts = [hint["text"] for hint in hints]
        drops = [drop for row in rows for drop in _drops(row)]
        found.append({
            "step": step,
            "hints": float(len(hints)),
            "words": float(np.mean([len(text.split()) for text in texts])),
            "distinct_1": distinct_n(texts, 1),
            "distinct_2": distinct_n(texts, 2),
            "repeated": 1.0 - len(set(texts)) / len(texts),
            "gated": float(np.mean([bool(hint["gates"]) for hint in hints])),
            "drop": float(np.mean(drops)) if drops else None,
        })  # fmt: skip
    return found


def _drops(row: Mapping[str, Any]) -> list[float]:
    """Clean minus hinted accuracy of each hint of one problem."""
    clean = share_right(row["clean"])
    hinted = [share_right(hint["hinted"]) for hint in row["hints"]]
    return [] if clean is None else [clean - share for share in hinted if share is not None]


# ---- pictures for papers: <stem>.png and <stem>.pdf, one style


def plot_curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], path: Path, *, percent: bool = True
) -> None:
    """{panel: {line: a (steps, values) for each seed}}: means with a 95% t-band over seeds."""
    with matplotlib.rc_context(dict(STYLE)):
        figure = Figure(figsize=(3.7 * len(panels), 2.9), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            for (name, seeds), color in zip(lines.items(), OKABE_ITO, strict=False):
                _draw_line(axes, name, seeds, color)
            axes.set(title=title, xlabel="step")
            if percent:
                axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
                _widen(axes)
            if len(lines) > MOST_INSIDE:
                axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
            else:
                axes.legend(fontsize=8)
        _save(figure, path)


def _widen(axes: Axes) -> None:
    """At least ten points from bottom to top: noise must not look like a cliff."""
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        middle = (low + high) / 2
        axes.set_ylim(middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2)


def _draw_line(axes: Axes, name: str, seeds: Sequence[Curve], color: str) -> None:
    common = sorted(set.intersection(*(set(steps) for steps, _ in seeds)))
    table = np.array([[dict(zip(*seed, strict=True))[s] for s in common] for seed in seeds])
    mean = table.mean(0)
    axes.plot(common, mean, color=color, label=name)
    if len(seeds) > 1:
        reach = stdtrit(len(seeds) - 1, 0.975) * table.std(0, ddof=1) / math.sqrt(len(seeds))
        axes.fill_between(common, mean - reach, mean + reach, color=color, alpha=0.18, lw=0)


def plot_crossplay(
    accuracy: np.ndarray,
    path: Path,
    *,
    adversaries: Sequence[str],
    reasoners: Sequence[str],
    title: str = "Accuracy under the hints of another checkpoint",
) -> None:
    """Row i, column j: Reasoner of checkpoint j under hints of checkpoint i; NaN stays blank."""
    wanted = (len(adversaries), len(reasoners))
    if accuracy.shape != wanted:
        raise DataError(f"plot_crossplay: got a matrix of {accuracy.shape}; wanted {wanted}")
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (1.9 + 0.55 * len(reasoners), 1.4 + 0.45 * len(adversaries))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(accuracy, cmap="cividis", vmin=0.0, vmax=1.0, aspect="auto")
        axes.set_xticks(range(len(reasoners)), reasoners)
        axes.set_yticks(range(len(adversaries)), adversaries)
        axes.set(title=title, xlabel="Reasoner of step", ylabel="hints of step")
        for (i, j), value in np.ndenumerate(accuracy):
            if np.isfinite(value):
                ink = "white" if value < 0.5 else "black"
                axes.text(j, i, f"{value:.0%}", ha="center", va="center", color=ink, fontsize=8)
        bar = figure.colorbar(image, format=matplotlib.ticker.PercentFormatter(1.0, decimals=0))
        bar.outline.set_visible(False)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    stem = Path(path).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".png"))
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})  # equal bytes
