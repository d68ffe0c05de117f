"""What each arm cost: every stage's cost, divided among the arms that use it, so that the arms add up to the study.

    ledger([line], ["lora", "full"], prices=None)["arms"]["lora"]["parts"]["tuning"]["flops"]

A line is one stage: {"key", "label", "kind", "part", "arms", "built", "tokens", "supervised_tokens", "flops", "measured": {...}}, where a
figure that is not known is None. Time is charged whether or not the stage ended well: failed and killed attempts are the arm's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from campana.report import quantity as q

PARTS = ("model", "data", "search", "tuning", "generation", "checking", "measuring")
"""What an arm pays for. `search` is the learning-rate search; `making` in the totals is search and tuning together."""

MAKING = ("search", "tuning")
WORKING = ("tune", "read_train", "generate", "read_answer")
"""Kinds of stages whose tokens and FLOPs are a model's work; the others do none."""


def ledger(lines: Sequence[Mapping[str, Any]], arms: Sequence[str], prices: Mapping[str, Any] | None) -> dict[str, Any]:
    """The cost ledger: per arm, its parts, `making` (search and tuning) and `total`; and the study's own total.

    Amounts are {"complete", "tokens", "supervised_tokens", "flops", "measured": {"seconds", "failed_seconds", "num_failed", "money",
    "energy_joules"}}; not `complete`: some of it is not built, and the figures are what was spent so far. `seconds`
    includes `failed_seconds`. Money is machine hours x `prices["machine_hour"]`, None without prices. Energy is that of tuning, None
    where a machine did not tell it. An arm's `measured` also has
    `peak_memory_bytes` and `tokens_per_second` (supervised tokens, of its tuning runs).
    """
    hour = None if prices is None else float(prices["machine_hour"])
    charged = {arm: _arm([line for line in lines if arm in line["arms"]], hour) for arm in arms}
    return {
        "currency": None if prices is None else prices["currency"],
        "lines": [dict(line) for line in lines],
        "arms": charged,
        "total": _amount(((line, 1.0) for line in lines), hour),
    }


def time_spent(amount: Mapping[str, Any]) -> str:
    """The seconds of an amount, written out."""
    seconds = amount["measured"]["seconds"]
    return q.spent(q.duration(seconds), seconds, amount["complete"])


def flops_spent(amount: Mapping[str, Any]) -> str:
    """The FLOPs of an amount, written out."""
    return q.spent(q.flops(amount["flops"]), amount["flops"], amount["complete"])


def money_spent(amount: Mapping[str, Any], currency: str | None) -> str:
    """The price of an amount, written out; without a currency, the bare number."""
    value = amount["measured"]["money"]
    text = q.NONE if value is None else f"{value:.4f}" if currency is None else q.money(value, currency)
    return q.spent(text, value, amount["complete"])


def tokens_spent(amount: Mapping[str, Any], name: str) -> str:
    """Tokens of an amount, written out; `name` is `tokens` or `supervised_tokens`."""
    return q.spent(q.count(amount[name]), amount[name], amount["complete"])


def _arm(lines: Sequence[Mapping[str, Any]], hour: float | None) -> dict[str, Any]:
    shares = [(line, 1.0 / len(line["arms"])) for line in lines]
    parts = {part: _amount(((line, share) for line, share in shares if line["part"] == part), hour) for part in PARTS}
    making = _amount(((line, share) for line, share in shares if line["part"] in MAKING), hour)
    total = _amount(shares, hour)
    tuning = [line for line in lines if line["part"] == "tuning" and line["built"]]
    peaks = [
        line["measured"]["peak_memory_bytes"] for line in lines if line["part"] in MAKING and line["measured"].get("peak_memory_bytes")
    ]
    seconds = sum(line["measured"].get("training_seconds") or 0.0 for line in tuning)
    supervised = sum(line["supervised_tokens"] or 0 for line in tuning)
    return {
        "parts": {part: amount for part, amount in parts.items() if any(line["part"] == part for line in lines)},
        "making": making,
        "total": total,
        "measured": {
            "peak_memory_bytes": max(peaks, default=None),
            "tokens_per_second": supervised / seconds if seconds > 0 and supervised else None,
        },
    }


def _amount(shares: Iterable[tuple[Mapping[str, Any], float]], hour: float | None) -> dict[str, Any]:
    listed = list(shares)
    amount: dict[str, Any] = {"complete": all(line["built"] for line, _ in listed)}
    for name in ("tokens", "supervised_tokens", "flops"):
        amount[name] = _counted(name, listed)
    seconds = sum((line["measured"].get("seconds") or 0.0) * share for line, share in listed)
    failed = sum((line["measured"].get("failed_seconds") or 0.0) * share for line, share in listed)
    amount["measured"] = {
        "seconds": seconds,
        "failed_seconds": failed,
        "num_failed": sum((line["measured"].get("num_failed") or 0) for line, _ in listed),
        "money": None if hour is None else seconds / 3600 * hour,
        "energy_joules": _energy(listed),
    }
    return amount


def _energy(shares: Sequence[tuple[Mapping[str, Any], float]]) -> float | None:
    """The joules of the tuning that is built so far; None where some of it was not measured."""
    tuned = [(line["measured"].get("energy_joules"), share) for line, share in shares if line["built"] and line["kind"] == "tune"]
    if not tuned or any(joules is None for joules, _ in tuned):
        return None
    return sum(joules * share for joules, share in tuned)


def _counted(name: str, shares: Sequence[tuple[Mapping[str, Any], float]]) -> float | int | None:
    """The sum of what is built so far; None where a built stage that works with a model could not count it."""
    working = [(line, share) for line, share in shares if line["built"] and line["kind"] in WORKING]
    if name != "supervised_tokens" and any(line[name] is None for line, _ in working):
        return None
    return _whole(sum((line[name] or 0) * share for line, share in working))


def _whole(value: float) -> float | int:
    """Counts that divide evenly stay whole numbers."""
    return int(value) if float(value).is_integer() else value
