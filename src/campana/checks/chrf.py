"""`chrf`: how near the answer is to a reference, by shared runs of characters. For every language, Chinese too.

    {"kind": "chrf"}        # against the item's reference

Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation"; computed by sacreBLEU.
"""

from __future__ import annotations

from typing import Literal

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text
from campana.records import Answer, Item


class Chrf(Check):
    """chrF (or chrF++) of the answer against the references, divided by 100."""

    kind: Literal["chrf"] = "chrf"
    references: tuple[str, ...] = ()
    """The texts to be near to, the nearest counts; none: the item's reference."""
    word_order: Literal[0, 2] = 0
    """2 counts runs of one and two words too: chrF++."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """0..1; unscored without a reference."""
        references = self.references or ((item.reference,) if item.reference is not None else ())
        references = tuple(reference for reference in references if reference.strip())
        if not references:
            return Outcome(None, "no reference to compare with")
        from sacrebleu.metrics.chrf import CHRF

        value = CHRF(word_order=self.word_order).sentence_score(final_text(answer), list(references)).score / 100
        return Outcome(min(1.0, max(0.0, value)), f"chrF{'++' if self.word_order else ''} {value:.2f} to the reference")
