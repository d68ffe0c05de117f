"""Windows and offsets: every token once, every answer a piece of its passage, whatever characters it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import regex
import tiny_readers as tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from campana.reading.examples import Example, Span
from campana.reading.graphemes import snap
from campana.reading.layout import Layout
from campana.reading.settings import Settings
from campana.reading.windows import group_of, spread_windows

NASTY = [
    *("Rome", "1998", "capital", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\x00", "\x07"),
    *(
        "cafe\u0301",
        "é",
        "ﬁ",
        "Å",
        "ş",
        "İ",
        "ß",
        "１９９８",
        "Ｒｏｍｅ",
        "，",
        "。",
        "中国首都",
        "北京",
        "ｶﾞ",
        "한국",
        "\u1112\u1161\u11ab",
    ),
    *(
        "\u1112\u1161\u11ab",
        "😀",
        "👩\u200d👩\u200d👧",
        "🇮🇹🇫🇷",
        "❤\ufe0f",
        "#\ufe0f\u20e3",
        "नमस्ते",
        "שָׁלוֹם",
        "ไทย",
        "\ud800",
        "[SEP]",
        "</s>",
        "\U00020bb7",
    ),
]
texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=6), max_size=25).map("".join)


@pytest.mark.parametrize("name", ["bert_reader", "roberta_reader"])
def test_answers_are_pieces_of_their_passage(name: str, request: pytest.FixtureRequest) -> None:
    reader = request.getfixturevalue(name)

    @settings(deadline=None, max_examples=120)
    @given(passage=texts, question=texts)
    @example(passage=" \u0e31", question="Rome")
    def law(passage: str, question: str) -> None:
        (answer,) = reader.answer([Example("1", question, passage)], threshold=float("inf"))
        for candidate in answer.nbest:
            assert passage[candidate.start : candidate.end] == candidate.text
            clusters = regex.findall(r"\X", candidate.text)  # a space that carries a mark is a letter's place, not a blank
            assert clusters
            assert not clusters[0].isspace()
            assert not clusters[-1].isspace()
            assert snap(passage, candidate.start, candidate.end) == (candidate.start, candidate.end)
        if answer.answer is None:
            assert answer.reason in ("empty passage", "empty question", "no span in the passage")
        else:
            assert passage[answer.start : answer.end] == answer.answer
        answer.to_json().encode("utf-8")

    law()


@pytest.mark.parametrize("make", [tiny.word_pieces, tiny.byte_level])
def test_rows_are_what_the_tokenizer_makes_of_a_pair(make: Any) -> None:
    tokenizer = make()
    question, passage = "Where is Anna?", "Anna  went to Rome (1998),\n中国 cafe\u0301 😀."
    group, _ = group_of([Example("1", question, passage)], Layout.of(tokenizer), Settings(max_length=128))
    batch = group.collate(np.array([0]))
    expected = tokenizer(question, passage, return_token_type_ids=True)
    assert batch.input_ids[0].tolist() == expected["input_ids"]
    if "##" in str(tokenizer.backend_tokenizer.decoder):
        assert batch.token_type_ids[0].tolist() == expected["token_type_ids"]


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 300), st.integers(1, 60), st.integers(0, 80))
def test_windows_cover_every_token_and_own_it_once_where_it_has_most_context(num_tokens: int, room: int, overlap: int) -> None:
    first, count, own_first, own_end = spread_windows(num_tokens, room, overlap)
    owner = np.full(num_tokens, -1)
    for window in range(len(first)):
        assert 0 < count[window] <= room
        assert first[window] <= own_first[window] < own_end[window] <= first[window] + count[window]
        assert (owner[own_first[window] : own_end[window]] == -1).all()
        owner[own_first[window] : own_end[window]] = window
    assert (owner >= 0).all()
    context = [[min(t - f, f + c - 1 - t) if f <= t < f + c else -1 for f, c in zip(first, count, strict=True)] for t in range(num_tokens)]
    assert all(context[t][owner[t]] == max(context[t]) for t in range(num_tokens))
    if len(first) > 1:
        assert first[-2] + count[-2] < num_tokens  # no window but the last reaches the end


def test_a_span_in_a_long_passage_is_found_wherever_it_stands(bert_reader: Any) -> None:
    """A forward function that knows the answer's token: the windows must lead to the same characters."""
    import dataclasses

    import torch

    rome = bert_reader.layout.tokens(["Rome"])[0].ids[0]

    def forward(batch: Any) -> Any:
        logits = torch.from_numpy((batch.input_ids == rome) * 10.0 - 5.0).float()
        return logits, logits

    reader = dataclasses.replace(bert_reader, forward=forward, settings=Settings(max_length=48, overlap=16, max_answer_tokens=1))
    for place in range(0, 400, 7):
        words = ["Paris"] * 400
        words[place] = "Rome"
        passage = " ".join(words)
        (answer,) = reader.answer([Example("1", "Where?", passage)])
        assert (answer.answer, answer.start) == ("Rome", passage.index("Rome"))
        assert answer.num_windows > 10


def test_special_tokens_in_a_text_are_text(bert_reader: Any) -> None:
    assert 3 not in bert_reader.layout.tokens(["Rome [SEP] Paris"])[0].ids


def test_a_question_longer_than_the_window_is_cut_and_said(bert_reader: Any) -> None:
    (answer,) = bert_reader.answer([Example("1", "where is Rome " * 500, "Rome is the capital of Italy.")])
    assert answer.question_cut
    assert answer.nbest


def test_batches_do_not_change_answers(bert_reader: Any) -> None:
    import dataclasses

    examples = [Example(str(n), "where is " + "the " * (n % 7) + "capital?", "Rome is the capital. " * (1 + n % 13)) for n in range(40)]
    one_by_one = dataclasses.replace(bert_reader, batch_tokens=1)
    for left, right in zip(bert_reader.answer(examples), one_by_one.answer(examples), strict=True):
        assert (left.id, left.start, left.end) == (right.id, right.start, right.end)
        assert left.margin == pytest.approx(right.margin, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("cafe\u0301s", 0, 4, (0, 5)),
        ("a👩\u200d👩\u200d👧b", 1, 2, (1, 6)),
        ("🇮🇹🇫🇷", 2, 3, (2, 4)),
        ("x\r\ny", 0, 2, (0, 3)),
        ("plain text", 2, 4, (2, 4)),
    ],
)
def test_graphemes_stay_whole(text: str, start: int, end: int, expected: tuple[int, int]) -> None:
    assert snap(text, start, end) == expected


@settings(deadline=None, max_examples=200)
@given(texts.filter(bool), st.data())
def test_tokens_that_cover_a_span_hold_it(text: str, data: st.DataObject) -> None:
    (tokens,) = Layout.of(tiny.byte_level()).tokens([text])
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    span = Span(start, end)
    cover = tokens.covering(start, end)
    if not span.of(text).strip():
        return
    assert cover is not None
    inner = span.of(text).strip()
    assert inner in text[tokens.starts[cover[0]] : tokens.ends[cover[1]]]


def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Anna went to Rome in 1998, Ben to Paris.\n" * 40
    for make in (tiny.word_pieces, tiny.byte_level):
        layout = Layout.of(make())
        (whole,) = layout.tokens([text])
        monkeypatch.setattr("campana.reading.layout.PIECE_CHARACTERS", 100)
        (pieces,) = layout.tokens([text])
        monkeypatch.undo()
        for name in ("ids", "starts", "ends"):
            np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
