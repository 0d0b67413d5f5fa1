"""One line of metrics.jsonl out of what a step played and learnt. Plain Python."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from seirenes_jax.games.base import Note
from seirenes_jax.hints import classify
from seirenes_jax.play import Played
from seirenes_jax.streams import Fifo, Live
from seirenes_jax.types import ADVERSARY, REASONER, Credit, Verdict

ROLES = (REASONER, ADVERSARY)


def rate(verdicts: Sequence[str]) -> float | None:
    """Share of right among right and wrong."""
    seen = [v == Verdict.RIGHT for v in verdicts if v in (Verdict.RIGHT, Verdict.WRONG)]
    return fmean(seen) if seen else None


def accuracies(notes: Sequence[Note]) -> dict[str, float | None]:
    """Of this step's training tries: clean, hinted, their difference, the mean pay of a hint."""
    clean = rate([t["verdict"] for note in notes for t in note["clean"]])
    attacks = [hint for note in notes for hint in note["hints"]]
    hinted = rate([t["verdict"] for hint in attacks for t in hint["hinted"]])
    drop = None if clean is None or hinted is None else clean - hinted
    reward = fmean(hint["reward"] for hint in attacks) if attacks else None
    return {"clean_acc": clean, "hinted_acc": hinted, "drop": drop, "adv_reward": reward}


def families(notes: Sequence[Note]) -> dict[str, int]:
    """How many of the hints that were passed on belong to each family/sub-family."""
    kept = (h["text"] for note in notes for h in note["hints"] if h["text"] and not h["gates"])
    return dict(sorted(Counter("/".join(classify(text)) for text in kept).items()))


def by_role(credits: Sequence[Credit]) -> dict[str, float | None]:
    """Mean reward of each role's counted rollouts."""
    rewards: dict[str, list[float]] = {role: [] for role in ROLES}
    for credit in credits:
        if credit.weight > 0:
            rewards[credit.rollout.ask.role].append(credit.reward)
    return {role: fmean(found) if found else None for role, found in rewards.items()}


def played_row(
    played: Sequence[Played], live: Mapping[str, Live], fifo: Mapping[str, Fifo]
) -> dict[str, Any]:
    """What the games brought."""
    notes = [note for one in played for note in one.notes]
    credits = [c for one in played for game in one.credits for c in game]

    def total(what: str, key: str) -> int:
        return sum(int(getattr(one.counts, what).get(key, 0)) for one in played)

    samples = {role: total("samples", role) for role in ROLES}
    gates = sorted({gate for one in played for gate in one.counts.gates})
    return {
        **accuracies(notes),
        "live": {s: (n.live / n.groups if n.groups else None) for s, n in live.items()},
        "gates": {gate: total("gates", gate) for gate in gates},
        "families": families(notes),
        "length": {r: total("tokens", r) / n if (n := samples[r]) else None for r in ROLES},
        "stop_length": {r: total("cut", r) / n if (n := samples[r]) else None for r in ROLES},
        "reward": by_role(credits),
        "fifo": {
            s: {"depth": f.depth, "age": f.age, "evicted": f.evicted} for s, f in fifo.items()
        },
        "verdicts": {str(v): total("verdicts", str(v)) for v in Verdict},
        "resampled": sum(len(one.notes) for one in played[1:]),
        "tokens": sum(total("tokens", role) for role in ROLES),
    }


def learnt_row(totals: Mapping[str, Any], streams: Sequence[str]) -> dict[str, Any]:
    """What the update said: `totals` are the step's Totals by name, `name` or `name/stream`."""

    def value(name: str) -> float | None:
        return float(totals[name].value()) if name in totals and totals[name].count > 0 else None

    def role_entropy(role: str) -> float | None:
        mine = [s for s in streams if (s == "adversary") == (role == ADVERSARY)]
        found = [totals[f"entropy/{s}"] for s in mine if f"entropy/{s}" in totals]
        count = float(sum(t.count for t in found))
        return float(sum(t.sum for t in found)) / count if count else None

    return {
        "entropy": {role: role_entropy(role) for role in ROLES},
        "loss": {s: value(f"loss/{s}") for s in streams},
        "ratio_max": value("ratio_max"),
        "clip_frac": value("clip_frac"),
        "kl_behaviour": value("kl_behaviour"),
        "kl_ref": value("kl_ref"),
        # Of experts alone.
        "balance": value("balance"),
        "route_agreement": value("route_agreement"),
    }
