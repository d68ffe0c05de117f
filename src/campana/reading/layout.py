"""How a tokenizer puts a question and a passage into one row, and what its tokens are in the text.

    layout = Layout.of(tokenizer, decoder=False)
    tokens = layout.tokens(["In Rome."])[0]      # Tokens(ids, starts, ends): int32 arrays, characters of the text as given

Owns the tokenizer: truncation and padding that its file asks for are turned off, for they would drop text silently. Refuses slow
tokenizers, which do not know offsets. Texts are tokenised by themselves, once each, and rows are put together from the pieces: that is
what the tokenizer itself does with a pair, without doing the passage again for every question. A decoder has no such form, whatever its
tokenizer: its rows are the token that begins a text, the question, a new line, the passage, and the token that ends a text, which alone
has seen them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from campana.errors import ModelError
from campana.reading.rows import encodable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

PIECE_CHARACTERS = 100_000
"""Longer texts are tokenised in pieces, cut at white space where there is any: a tokenizer takes hundreds of bytes a token."""
_SPACES = np.array([ord(char) for char in map(chr, range(0x3001)) if char.isspace()], dtype=np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A text's N tokens. Token i stands for characters `starts[i]` to `ends[i]`, white space at its ends left out.

    A token with `starts[i] == ends[i]` stands for no visible character and can neither begin nor end an answer.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def covering(self, start: int, end: int) -> tuple[int, int] | None:
        """First and last token that have a character of `start` to `end`; None where none has."""
        touching = np.nonzero((self.ends > start) & (self.starts < end) & (self.starts < self.ends))[0]
        return (int(touching[0]), int(touching[-1])) if len(touching) else None


@dataclass(frozen=True, eq=False)
class Layout:
    """prefix + question + middle + passage + suffix, as ids and type ids."""

    tokenizer: Tokenizer
    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    question_type: int
    passage_type: int
    middle_types: tuple[int, ...]
    suffix_types: tuple[int, ...]
    pad_id: int
    null_index: int
    """The token of the row whose logits stand for "no answer": the classifier token, else the first; -1: the last, in a decoder's row."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, decoder: bool = False) -> Layout:
        """Learn the layout from what the tokenizer does with a pair of words; `decoder`: the form that decoders read."""
        from tokenizers import Tokenizer

        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError("this tokenizer has no tokenizer.json, so it does not know offsets", hint="save it as a fast tokenizer")
        own = Tokenizer.from_str(backend.to_str())
        own.no_truncation()
        own.no_padding()
        own.encode_special_tokens = True  # "[SEP]" in a passage is text
        if decoder:
            return cls._of_decoder(own, tokenizer)
        pair = own.encode("a", "a")
        sides = list(pair.sequence_ids)
        if 0 not in sides or 1 not in sides or sides.index(0) > sides.index(1):
            raise ModelError("this tokenizer does not put two texts into one row", hint="use an encoder's tokenizer, such as BERT's")
        question = [index for index, side in enumerate(sides) if side == 0]
        passage = [index for index, side in enumerate(sides) if side == 1]
        ids, types = pair.ids, pair.type_ids
        prefix = tuple(ids[: question[0]])
        cls_id: Any = getattr(tokenizer, "cls_token_id", None)
        return cls(
            tokenizer=own,
            prefix=prefix,
            middle=tuple(ids[question[-1] + 1 : passage[0]]),
            suffix=tuple(ids[passage[-1] + 1 :]),
            question_type=types[question[0]],
            passage_type=types[passage[0]],
            middle_types=tuple(types[question[-1] + 1 : passage[0]]),
            suffix_types=tuple(types[passage[-1] + 1 :]),
            pad_id=_pad_id(tokenizer),
            null_index=prefix.index(cls_id) if cls_id in prefix else 0,
        )

    @classmethod
    def _of_decoder(cls, own: Tokenizer, tokenizer: Any) -> Layout:
        names = (("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id"))
        first, last = (next((id_ for name in each if (id_ := getattr(tokenizer, name, None)) is not None), None) for each in names)
        if last is None:
            raise ModelError("this tokenizer has no token that ends a text", hint="name its eos_token in tokenizer_config.json")
        prefix = () if first is None else (int(first),)
        middle = tuple(own.encode("\n", add_special_tokens=False).ids)
        return cls(own, prefix, middle, (int(last),), 0, 0, (0,) * len(middle), (0,), _pad_id(tokenizer), -1)

    @property
    def num_special(self) -> int:
        """Tokens of a row that are neither question nor passage."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, no special tokens added."""
        pieces = [(index, first, piece) for index, text in enumerate(texts) for first, piece in _pieces(encodable(text))]
        encoded = self.tokenizer.encode_batch([piece for _, _, piece in pieces], add_special_tokens=False)
        parts: list[list[NDArray[np.int32]]] = [[] for _ in texts]
        for (index, first, _), encoding in zip(pieces, encoded, strict=True):
            rows = np.empty((3, len(encoding.ids)), dtype=np.int32)
            rows[0] = encoding.ids
            rows[1:] = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2).T + first
            parts[index].append(rows)
        return [_trimmed(text, np.concatenate(part, axis=1)) for text, part in zip(texts, parts, strict=True)]


def _pad_id(tokenizer: Any) -> int:
    """What fills rows up; which token it is does not matter, as padding is never attended to."""
    found = getattr(tokenizer, "pad_token_id", None)
    return int(found) if found is not None else 0


def _pieces(text: str) -> list[tuple[int, str]]:
    """(first character, piece). A cut is made before a single white space, or after a full stop, so that no word is cut in two."""
    found: list[tuple[int, str]] = []
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        floor = end - PIECE_CHARACTERS // 4
        cut = max(text.rfind("\n", floor, end), text.rfind(" ", floor, end), text.rfind("\u3002", floor, end) + 1)
        cut = cut if cut > floor else end
        found.append((start, text[start:cut]))
        start = cut
    found.append((start, text[start:]))
    return found


def _trimmed(text: str, rows: NDArray[np.int32]) -> Tokens:
    ids, starts, ends = rows
    if len(ids):
        points = np.frombuffer(encodable(text).encode("utf-32-le") + b"\0\0\0\0", dtype=np.uint32)
        space = np.isin(points, _SPACES)
        while (move := space[starts] & (starts < ends)).any():
            starts = starts + move
        while (move := space[ends - 1] & (starts < ends)).any():
            ends = ends - move
    return Tokens(np.ascontiguousarray(ids), starts.astype(np.int32), ends.astype(np.int32))
