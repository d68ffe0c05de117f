"""Whether an exported graph computes what the model computes: logits and spans, window by window, on real and on awkward inputs.

parity = compare(reader.forward, exported.forward, examples, reader)
parity.require()                              # ModelError above the bound, with the largest difference and where it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from campana.errors import ModelError
from campana.reading.examples import Example
from campana.reading.reader import Forward, Reader, spans_of
from campana.reading.windows import Batch, groups

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

BOUND = 1e-3
"""Logits are of the order of 1 to 10; float32 engines agree to 1e-5 of that, a wrong mask or a lost type id does not."""
BATCH_TOKENS = (1, 4096)
"""The same windows one by one, and in batches that pad them."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two engines of one model agree."""

    num_windows: int
    """Compared, each in every size of batch."""
    num_logits: int
    largest_difference: float
    """Of a start or end logit of a token that is no padding."""
    where: str
    """The question of that logit."""
    num_equal_spans: int
    """Windows whose best span is the same."""
    num_tied_spans: int
    """Windows whose best spans differ, but whose scores lie within twice the bound: either is right."""
    num_other_spans: int
    bound: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def require(self) -> None:
        """ModelError where a logit is off by more than the bound, or a span is another one."""
        if self.largest_difference > self.bound or self.num_other_spans:
            raise ModelError(
                f"the graph does not compute what the model does: a logit differs by {self.largest_difference:.3g} (bound {self.bound:g}), "
                f"{self.num_other_spans} of {self.num_windows} best spans are others",
                where=f"question {self.where}",
                hint="nothing was written; read the model with torch, or raise --bound if that difference is what you expect",
            )


def compare(first: Forward, second: Forward, examples: Sequence[Example], reader: Reader, bound: float = BOUND) -> Parity:
    """Run both engines on the windows of the examples. `reader` gives layout and settings; `first` is the one that is right."""
    seen, compared, worst, where = 0, 0, 0.0, ""
    equal = tied = 0
    for group in groups(examples, reader.layout, reader.settings):
        for most in BATCH_TOKENS:
            for windows in group.batches(most):
                batch = group.collate(windows)
                pair = _run(batch, first), _run(batch, second)
                differences = _differences(batch, *pair)
                seen += len(windows)
                compared += 2 * int(batch.attention_mask.sum())
                top = int(np.argmax(differences))
                if differences[top] >= worst:
                    worst, where = float(differences[top]), group.examples[int(group.of_example[windows[top]])].id
                ours, theirs = (spans_of(batch, partial(_again, logits), group, reader.settings) for logits in pair)
                same = (ours[1][:, 0] == theirs[1][:, 0]) & (ours[2][:, 0] == theirs[2][:, 0])
                equal += int(same.sum())
                tied += int((~same & _near(ours, theirs, bound)).sum())
    return Parity(seen, compared, worst, where, equal, tied, seen - equal - tied, bound)


Logits = tuple["Tensor", "Tensor"]


def _run(batch: Batch, forward: Forward) -> Logits:
    import torch

    with torch.inference_mode():
        return forward(batch)


def _again(logits: Logits, _: Batch) -> Logits:
    """What an engine said already, for the decoder."""
    return logits


def _differences(batch: Batch, first: Logits, second: Logits) -> NDArray[np.float64]:
    """(B,) the largest difference of a logit in each window, padding left out."""
    visible = batch.attention_mask.astype(bool)
    gaps = [np.abs(a.float().numpy().astype(np.float64) - b.float().numpy()) for a, b in zip(first, second, strict=True)]
    gaps = [np.where(np.isnan(gap), np.inf, gap) for gap in gaps]
    return np.maximum(*(np.where(visible, gap, 0.0).max(axis=1) for gap in gaps))


def _near(ours: Sequence[Any], theirs: Sequence[Any], bound: float) -> NDArray[np.bool_]:
    """(B,) whether the second engine's best span is, by the first engine's scores, within rounding of the best."""
    score, start, end = ours[0], ours[1], ours[2]
    match = (start == theirs[1][:, :1]) & (end == theirs[2][:, :1])
    there = np.where(match, score, -np.inf).max(axis=1)
    return np.asarray(score[:, 0] - there <= 2 * bound)


def awkward_examples(reader: Reader) -> tuple[Example, ...]:
    """Inputs at the edges: one token, many full windows, a question over its limit, all kinds of scripts, nothing known."""
    long = reader.settings.max_length
    passages = {
        "one word": "Rome",
        "one character": "a",
        "one mark": ".",
        "the same word": "the " * (3 * long),
        "no spaces": "x" * 1000,
        "prose": "Anna went to Rome in 1998 and stayed for two years. Ben, who did not, paid 3.50 EUR. " * 40,
        "Chinese": "\u5b89\u5a1c\u4e8e\u4e00\u4e5d\u4e5d\u516b\u5e74\u53bb\u4e86\u7f57\u9a6c\u3002" * 60,
        "full width": "\uff32\uff4f\uff4d\uff45 \uff11\uff19\uff19\uff18\uff0c\u3000Rome",
        "emoji": "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 Rome \U0001f1ee\U0001f1f9",
        "marks": "cafe\u0301 re\u0301sume\u0301 \u0928\u092e\u0938\u094d\u0924\u0947",
        "control": "Ro\u0000me\u200b \u00ad\u202ein\ufeff 1998\t\r\n",
        "unknown": "\ue000\ue001 \U00100000 \u13a0\u13a1",
        "special tokens as text": "[SEP] [CLS] </s> <pad> [MASK]",
    }
    questions = {
        "short": "Where?",
        "long": "Where did Anna go, and when, and why? " * 30,
        "Chinese": "\u5b89\u5a1c\u53bb\u4e86\u54ea\u91cc\uff1f",
    }
    return tuple(
        Example(f"{what} / {asked} question", question, passage)
        for what, passage in passages.items()
        for asked, question in questions.items()
    )
