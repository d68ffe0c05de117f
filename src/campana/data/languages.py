"""A guess at what texts are written in, from the scripts of their letters. It is shown in the data report and decides nothing."""

from __future__ import annotations

import re

from campana.records import Conversation

MAX_ROWS = 1000
MAX_CHARACTERS = 400

SCRIPTS = {
    "latin": re.compile(r"[A-Za-z\u00C0-\u024F]"),
    "han": re.compile(r"[\u3400-\u9FFF\uF900-\uFAFF\U00020000-\U0003347F]"),
    "kana": re.compile(r"[\u3040-\u30FF]"),
    "hangul": re.compile(r"[\uAC00-\uD7AF]"),
    "cyrillic": re.compile(r"[\u0400-\u052F]"),
}


class Scripts:
    """Counts letters by script over the first rows it is given."""

    def __init__(self) -> None:
        self._rows = 0
        self._letters = dict.fromkeys(SCRIPTS, 0)

    def add(self, conversation: Conversation) -> None:
        """Count a conversation's letters; free of cost once enough were seen."""
        if self._rows >= MAX_ROWS:
            return
        self._rows += 1
        for message in conversation.messages:
            text = message.content[:MAX_CHARACTERS]
            for script, pattern in SCRIPTS.items():
                self._letters[script] += len(pattern.findall(text))

    def guess(self) -> dict[str, object]:
        """`zh`, `ja`, `ko`, `ru`, `latin` (English or another), `mixed` where none has four letters of five, or `unknown`; and the shares.

        A Chinese or Japanese letter says more than a Latin one, so it counts for three.
        """
        total = sum(self._letters.values())
        if not total:
            return {"guess": "unknown", "shares": {}}
        letters = self._letters
        east = letters["han"] + letters["kana"]
        japanese = letters["kana"] * 10 > letters["han"]
        weights = {"ja" if japanese else "zh": 3 * east, "ko": letters["hangul"], "ru": letters["cyrillic"], "latin": letters["latin"]}
        best = max(weights, key=lambda name: weights[name])
        sure = weights[best] >= 0.8 * sum(weights.values())
        return {"guess": best if sure else "mixed", "shares": {name: round(count / total, 4) for name, count in letters.items() if count}}
