"""`rouge_l`: how much of the reference the answer says in the same order, by the longest common subsequence of words.

    {"kind": "rouge_l"}        # against the item's reference

Lin (2004), "ROUGE: a package for automatic evaluation of summaries"; computed by rouge-score. Its own tokenizer drops
every letter outside a-z, so that all Chinese texts are empty to it; here a Chinese character is a word.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, runs
from campana.records import Answer, Item


class RougeL(Check):
    """ROUGE-L of the answer against the references: small letters, no stemming, a Chinese character is a word."""

    kind: Literal["rouge_l"] = "rouge_l"
    references: tuple[str, ...] = ()
    """The texts to be near to, the nearest counts; none: the item's reference."""
    measure: Literal["f", "recall", "precision"] = "f"
    """F1, or the share of the reference that is said, or the share of the answer that is in the reference."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """0..1; unscored without a reference that holds words."""
        references = self.references or ((item.reference,) if item.reference is not None else ())
        references = tuple(reference for reference in references if runs(reference))
        if not references:
            return Outcome(None, "no reference to compare with")
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"], tokenizer=_Words())
        found = scorer.score_multi(list(references), final_text(answer))["rougeL"]
        value = {"f": found.fmeasure, "recall": found.recall, "precision": found.precision}[self.measure]
        return Outcome(value, f"ROUGE-L {'F1' if self.measure == 'f' else self.measure} {value:.2f} to the reference")


class _Words:
    """A tokenizer in the form that rouge-score takes."""

    def tokenize(self, text: str) -> list[str]:
        return runs(unicodedata.normalize("NFKC", text).casefold())
