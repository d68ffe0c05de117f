"""Questions and passages -> rows of tokens for a model, in batches of like length.

    for group in groups(examples, layout, settings):      # some hundred questions at a time
        for rows in group.batches(max_tokens=4096):       # indices of windows, longest first
            batch = group.collate(rows)                   # Batch: (B, L) arrays

A passage longer than a window is read in several that overlap. Each passage token is *owned* by the one window in which it has the most
context (the smaller of the tokens to its left and right), and an answer counts in the window that owns its first token: every span has
one score. Memory follows the group's tokens (12 bytes each), never the number of windows times their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from campana.errors import ModelError
from campana.reading.examples import Example
from campana.reading.layout import Layout, Tokens
from campana.reading.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP_EXAMPLES = 512
GROUP_CHARACTERS = 1_000_000


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows, padded to L tokens."""

    windows: NDArray[np.int64]
    """Which windows of the group: (B,)."""
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    passage_at: NDArray[np.int64]
    """Row position of the window's first passage token: (B,)."""
    null_at: NDArray[np.int64]
    """Row position of the token whose logits stand for "no answer": (B,)."""
    can_start: NDArray[np.bool_]
    """(B, L): may be the first token of an answer (owned by this window, and visible)."""
    can_end: NDArray[np.bool_]
    """(B, L): may be the last token of an answer."""


@dataclass(frozen=True, eq=False)
class Group:
    """Some examples and their W windows, as columns."""

    examples: tuple[Example, ...]
    questions: tuple[Tokens, ...]
    question_lengths: NDArray[np.int64]
    """Tokens of each question that are in its windows."""
    passages: tuple[Tokens, ...]
    layout: Layout
    of_example: NDArray[np.int64]
    """(W,) the example of each window; an empty passage or question has none."""
    first: NDArray[np.int64]
    """(W,) the window's first passage token."""
    count: NDArray[np.int64]
    """(W,) its number of passage tokens."""
    own_first: NDArray[np.int64]
    own_end: NDArray[np.int64]
    """(W,) the passage tokens that the window owns."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(W,) tokens of each row, without padding."""
        return self.layout.num_special + self.question_lengths[self.of_example] + self.count

    def question_was_cut(self, example: int) -> bool:
        """Whether the question is longer than what the windows hold of it."""
        return int(self.question_lengths[example]) < len(self.questions[example])

    def batches(self, max_tokens: int) -> Iterator[NDArray[np.int64]]:
        """Windows in batches of at most `max_tokens`, padding counted (at least one window each), longest first."""
        lengths = self.lengths
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(1, max_tokens // int(lengths[order[start]]))
            yield order[start : start + size]
            start += size

    def collate(self, windows: NDArray[np.int64]) -> Batch:
        """The rows of these windows."""
        layout, lengths = self.layout, self.lengths[windows]
        shape = (len(windows), int(lengths.max()))
        input_ids = np.full(shape, layout.pad_id, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        can_start, can_end = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        head = len(layout.prefix)
        at = head + self.question_lengths[self.of_example[windows]] + len(layout.middle)
        for row, window in enumerate(windows):
            example, first, count = int(self.of_example[window]), int(self.first[window]), int(self.count[window])
            passage, begin, end = self.passages[example], int(at[row]), int(at[row]) + count
            middle = begin - len(layout.middle)
            input_ids[row, :head] = layout.prefix
            input_ids[row, head:middle] = self.questions[example].ids[: middle - head]
            input_ids[row, middle:begin] = layout.middle
            input_ids[row, begin:end] = passage.ids[first : first + count]
            input_ids[row, end : end + len(layout.suffix)] = layout.suffix
            types[row, :middle] = layout.question_type
            types[row, middle:begin] = layout.middle_types
            types[row, begin:end] = layout.passage_type
            types[row, end : end + len(layout.suffix)] = layout.suffix_types
            can_end[row, begin:end] = passage.starts[first : first + count] < passage.ends[first : first + count]
            own = slice(begin + int(self.own_first[window]) - first, begin + int(self.own_end[window]) - first)
            can_start[row, own] = can_end[row, own]
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        null_at = np.broadcast_to(layout.null_index, lengths.shape) if layout.null_index >= 0 else lengths + layout.null_index
        return Batch(windows, input_ids, mask, types, at, null_at, can_start, can_end)


def group_of(
    examples: Sequence[Example], layout: Layout, settings: Settings, known: dict[str, Tokens] | None = None
) -> tuple[Group, dict[str, Tokens]]:
    """The windows of some examples, and the tokens of their passages (give them as `known` to the next call)."""
    passages = {example.passage: None for example in examples}
    table = {text: tokens for text, tokens in (known or {}).items() if text in passages}
    missing = [text for text in passages if text not in table]
    table.update(zip(missing, layout.tokens(missing), strict=True))
    questions = layout.tokens([example.question for example in examples])
    room = settings.max_length - layout.num_special
    if room < 2:
        raise ModelError(f"a window of {settings.max_length} tokens has no room for a question and a passage", hint="raise max_length")
    cut = min(settings.max_question_tokens, room // 2)
    question_lengths = np.array([min(len(tokens), cut) for tokens in questions], dtype=np.int64)
    columns: list[NDArray[np.int64]] = []
    for index, example in enumerate(examples):
        if question_lengths[index]:
            spread = spread_windows(len(table[example.passage]), room - int(question_lengths[index]), settings.overlap)
            columns.append(np.vstack([np.full(spread.shape[1], index), spread]))
    whole = np.concatenate(columns, axis=1) if columns else np.zeros((5, 0), dtype=np.int64)
    group = Group(
        tuple(examples), tuple(questions), question_lengths, tuple(table[example.passage] for example in examples), layout, *whole
    )
    return group, table


def spread_windows(num_tokens: int, room: int, overlap: int) -> NDArray[np.int64]:
    """(4, W): first token, number of tokens, first and end of the owned tokens. At most half of a window overlaps the next."""
    step = room - min(overlap, room // 2)
    first = np.arange(0, max(1, num_tokens - room + step), step, dtype=np.int64) if num_tokens else np.zeros(0, dtype=np.int64)
    end = np.minimum(first + room, num_tokens)
    # Between two windows, context is equal half-way through what they share: min(left, right) changes sides there.
    turns = (first[1:] + end[:-1]) // 2
    own_first = np.concatenate([first[:1], turns])
    own_end = np.concatenate([turns, end[-1:]])
    return np.stack([first, end - first, own_first, own_end])


def groups(examples: Iterable[Example], layout: Layout, settings: Settings) -> Iterator[Group]:
    """Examples in groups of bounded size, in order; a passage that neighbours share is tokenised once."""
    waiting: list[Example] = []
    characters = 0
    known: dict[str, Tokens] = {}
    for example in examples:
        fresh = 0 if waiting and waiting[-1].passage == example.passage else len(example.passage)
        if waiting and (len(waiting) >= GROUP_EXAMPLES or characters + fresh > GROUP_CHARACTERS):
            group, known = group_of(waiting, layout, settings, known)
            yield group
            waiting, characters = [], 0
        waiting.append(example)
        characters += fresh
    if waiting:
        yield group_of(waiting, layout, settings, known)[0]
