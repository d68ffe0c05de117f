"""A guess at what texts are written in, from the scripts of their letters. It is shown in the data report and decides nothing."""

from __future__ import annotations

from campana.records import Conversation

MAX_ROWS = 2000
MAX_CHARACTERS = 400


class Scripts:
    """Counts letters by script over the first rows it is given."""

    def __init__(self) -> None:
        self._rows = 0
        self._letters = {"latin": 0, "han": 0, "kana": 0, "hangul": 0, "cyrillic": 0, "other": 0}

    def add(self, conversation: Conversation) -> None:
        """Count a conversation's letters; free of cost once enough were seen."""
        if self._rows >= MAX_ROWS:
            return
        self._rows += 1
        for message in conversation.messages:
            for letter in message.content[:MAX_CHARACTERS]:
                if letter.isalpha():
                    self._letters[_script(ord(letter))] += 1

    def guess(self) -> dict[str, object]:
        """`zh`, `ja`, `ko`, `ru`, `en or another in Latin letters`, or `mixed` where no script has four letters of five; and the shares.

        Chinese and Japanese letters say more than Latin ones, so one counts for three.
        """
        total = sum(self._letters.values())
        if not total:
            return {"guess": "unknown", "shares": {}}
        weights = {script: count * (3 if script in {"han", "kana"} else 1) for script, count in self._letters.items()}
        asian = "ja" if weights["kana"] * 10 > weights["han"] else "zh"
        groups = {
            asian: weights["han"] + weights["kana"],
            "ko": weights["hangul"],
            "ru": weights["cyrillic"],
            "en or another in Latin letters": weights["latin"],
            "other": weights["other"],
        }
        best = max(groups, key=lambda name: groups[name])
        sure = groups[best] >= 0.8 * sum(groups.values())
        return {
            "guess": best if sure else "mixed",
            "shares": {name: round(count / total, 4) for name, count in self._letters.items() if count},
        }


def _script(code: int) -> str:
    ranges = (
        (0x0250, "latin"),
        (0x0400, "other"),
        (0x0530, "cyrillic"),
        (0x3040, "other"),
        (0x3100, "kana"),
        (0x3400, "other"),
        (0xA000, "han"),
        (0xAC00, "other"),
        (0xD7B0, "hangul"),
        (0xF900, "other"),
        (0xFB00, "han"),
        (0x20000, "other"),
        (0x33480, "han"),
    )
    return next((script for end, script in ranges if code < end), "other")
