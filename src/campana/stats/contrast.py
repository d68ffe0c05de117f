"""A comparison of two sides on the same prompts: its difference, its verdict, and the sentence that says so.

Owns verdicts; refuses to let one contradict the interval beside it. A verdict is read off the interval alone:

- *equivalent*: the whole interval is within the margin (even where it leaves out 0: such a difference is of no practical worth);
- *better* or *worse*: the interval leaves out 0;
- *not resolved*: neither, and `needed` tells what would.

So equivalence is two one-sided tests (Schuirmann 1987) at `(1 - confidence) / 2`, stricter than the usual `1 - confidence`, which would
need a second, narrower interval.

    verdict(Estimate(0.031, 0.012, 0.050, 0.0097, 88.0), margin=0.02)    # "better"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from campana.stats.estimate import Estimate
from campana.stats.power import Needed

Verdict = Literal["better", "worse", "equivalent", "not resolved"]


def verdict(difference: Estimate, margin: float) -> Verdict:
    """What the interval says of left against right."""
    if difference.low is None or difference.high is None:
        return "not resolved"
    if -margin <= difference.low and difference.high <= margin:
        return "equivalent"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not resolved"


def side_name(side: Sequence[str], other: Sequence[str], levels: Mapping[str, Mapping[str, str]]) -> str:
    """What to call a side: its arm, or the levels that all its arms share and the other side's arms do not."""
    if len(set(side)) == 1:
        return side[0]
    shared = set.intersection(*(set(levels[arm].items()) for arm in side))
    other_shared = set.intersection(*(set(levels[arm].items()) for arm in other))
    own = [level for factor, level in levels[side[0]].items() if (factor, level) in shared - other_shared]
    return " ".join(own) if own else "the mean of " + ", ".join(dict.fromkeys(side))


def sentence(sides: tuple[str, str], difference: Estimate, level: str, *, found: Verdict, more: Needed, margin: float) -> str:
    """The comparison in words.

    `sides` are what left and right are called, `level` names the interval, `95%`; `margin` is quoted where it decides.
    """
    left, right = sides
    mean, low, high = difference.mean, difference.low, difference.high
    if mean is None or low is None or high is None:
        return f"{left} and {right} have no scored prompt in common: not resolved."
    lower, upper = (low, high) if mean >= 0 else (-high, -low)
    interval = f"({level} interval {lower:.3f} to {upper:.3f})"
    if mean == 0:
        start = f"{left} and {right} score the same {interval}"
    else:
        start = f"{left} scores {abs(mean):.3f} {'higher' if mean > 0 else 'lower'} than {right} {interval}"
    if found == "equivalent":
        return f"{start}: equivalent within {margin:g}."
    return f"{start}: {found}{_needed_words(more)}." if found == "not resolved" else f"{start}: {found}."


def _needed_words(more: Needed) -> str:
    counts = ((more.prompts, "prompt"), (more.seeds, "seed"))
    ways = [f"{count:,} more {noun}{'s' if count > 1 else ''}" for count, noun in counts if count]
    return f"; {' or '.join(ways)} would" if ways else ""
