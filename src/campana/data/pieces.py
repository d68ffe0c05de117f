"""From pieces of text to tokens, many rows at once, with the template's control tokens as themselves and the contents' as text.

    PieceTokenizer(backend, ["<|im_end|>"]).rows([([Piece("Hi<|im_end|>", True)], mark)])   # one list of token lists a row

Each piece is tokenised by itself, so a boundary between what is given and what is learned is always a boundary between tokens. At control
tokens a tokenizer cuts texts anyway: so does this, and what a template writes between them is tokenised once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MOST_REMEMBERED = 4096
LONGEST_REMEMBERED = 256


class Piece(NamedTuple):
    """A text that becomes tokens by itself, and whether it is learned."""

    text: str
    supervised: bool


def control_pattern(control: Sequence[str]) -> re.Pattern[str]:
    """Matches any of the tokens, the longest first, and holds it as group 1."""
    tokens = sorted(control, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, tokens))})" if tokens else "((?!))")


class PieceTokenizer:
    """Tokenises pieces with a Rust tokenizer, which it uses on all cores."""

    def __init__(self, backend: Any, control: Sequence[str]) -> None:
        self._backend = backend
        self._control = control_pattern(control)
        tokens = [token for token in backend.get_added_tokens_decoder().values() if token.content in set(control)]
        bare = not any(token.lstrip or token.rstrip or token.single_word or token.normalized for token in tokens)
        self._newline = self._ids(["\n"])[0]
        letter = self._ids(["a"])[0]
        self._prepends = backend.decode([*letter, *letter], skip_special_tokens=False) != "aa"
        """Whether it sets a space before every text, which the inner pieces of a row must not have."""
        self._splits = bare and not self._prepends
        """Whether cutting a text at control tokens changes nothing."""
        self._known: dict[str, list[int]] = {token: [backend.token_to_id(token)] for token in control}

    def rows(self, rows: Iterable[tuple[Sequence[Piece], str]]) -> list[list[list[int]]]:
        """For each row, the tokens of each of its pieces. The second of a row is the mark that cuts its texts and vanishes."""
        plan = [[self._parts(piece.text, mark) for piece in pieces] for pieces, mark in rows]
        if self._prepends:
            return list(self._prepending(plan))
        # Each text once, in the order of its first use: what a template writes comes again in every row.
        new = list(dict.fromkeys(part for row in plan for parts in row for part in parts if part not in self._known))
        fresh = dict(zip(new, self._ids(new), strict=True))
        found = [[self._joined(parts, fresh) for parts in row] for row in plan]
        room = max(0, MOST_REMEMBERED - len(self._known))
        self._known.update([(part, ids) for part, ids in fresh.items() if len(part) <= LONGEST_REMEMBERED][:room])
        return found

    def _joined(self, parts: Sequence[str], fresh: Mapping[str, list[int]]) -> list[int]:
        tokens: list[int] = []
        for part in parts:
            ids = self._known.get(part)
            tokens += fresh[part] if ids is None else ids
        return tokens

    def _parts(self, text: str, mark: str) -> list[str]:
        cut = text.split(mark)
        if self._splits:
            return [part for stretch in cut for part in self._control.split(stretch) if part]
        return [part for part in cut if part]

    def _prepending(self, plan: Sequence[list[list[str]]]) -> Iterator[list[list[int]]]:
        """After a line break no space is set before a text; its tokens are then taken off again. A row's start is as it is."""
        parts = [part for row in plan for piece in row for part in piece]
        alone = iter(self._ids(parts))
        after = iter(self._ids(["\n" + part for part in parts]))
        length = len(self._newline)
        for row in plan:
            first = True
            done: list[list[int]] = []
            for piece in row:
                found: list[int] = []
                for _ in piece:
                    as_start, inside = next(alone), next(after)
                    found += as_start if first or inside[:length] != self._newline else inside[length:]
                    first = False
                done.append(found)
            yield done

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
