"""Which language a text is written in, as far as letters and the commonest words can tell.

complaint(language="zh", text="我喜欢喝茶")        # "" : it is
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, get_args

Language = Literal["en", "zh", "ja", "ko", "ru", "es", "fr", "de"]

_SCRIPTS = (
    ("Chinese characters", re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")),
    ("kana", re.compile(r"[\u3040-\u30ff]")),
    ("hangul", re.compile(r"[\u1100-\u11ff\uac00-\ud7af]")),
    ("Cyrillic letters", re.compile(r"[\u0400-\u04ff]")),
    ("Latin letters", re.compile(r"[A-Za-z\u00c0-\u024f]")),
)
_SCRIPT_OF = {"zh": "Chinese characters", "ko": "hangul", "ru": "Cyrillic letters"}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_COMMON = {
    "en": _set("the of and to a in is it that was for on are with as at be this have from or by not you i he she we they"),
    "es": _set("el la los las de que y en un una es por con para del se no su al lo como más pero muy yo"),
    "fr": _set("le la les de des et en un une est que pour dans du qui au sur pas il elle je nous vous ce avec sont"),
    "de": _set("der die das und ist nicht ein eine zu den von mit dem ich sie es auf für im sich auch wir er sind"),
}
_NAMES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "es": "Spanish",
    "fr": "French",
    "de": "German",
}
_MAJORITY = 0.5

assert set(_NAMES) == set(get_args(Language))


def complaint(*, language: Language, text: str) -> str:
    """Why the text is not in the language; empty where it is.

    The script of most letters decides; among languages in Latin letters, whose commonest words are more frequent. A text in
    Latin letters with none of these words passes for any of them.
    """
    asked = f"asked for {_NAMES[language]}, found "
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS}
    letters = sum(counts.values())
    if not letters:
        return asked + "no letters"
    if language == "ja":
        # Kana tells Japanese from Chinese; their share is at least a tenth in running text.
        return "" if counts["kana"] * 10 >= letters else asked + _most(counts)
    if language in _SCRIPT_OF:
        # Chinese is counted in characters where others are counted in letters, hence half.
        enough = counts[_SCRIPT_OF[language]] >= _MAJORITY * letters and not (language == "zh" and counts["kana"] * 10 >= letters)
        return "" if enough else asked + _most(counts)
    if counts["Latin letters"] <= _MAJORITY * letters:
        return asked + _most(counts)
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    hits = {name: sum(words[word] for word in common) for name, common in _COMMON.items()}
    best = max(hits.values())
    return "" if hits[language] == best else asked + " or ".join(_NAMES[name] for name, hit in hits.items() if hit == best)


def _most(counts: dict[str, int]) -> str:
    return f"mostly {max(counts, key=lambda name: counts[name])}"
