"""One raw row -> its questions. A row is a whole SQuAD document, an article, a paragraph, or one question with its passage.

Forms of answers: `[{"text", "answer_start"}]` (SQuAD), `{"text": [...], "answer_start": [...]}` (the hub's), a list of texts, one text.
Whether a question has an answer: `is_impossible` where it is said (also as text), else whether `answers` holds any; with neither it
is not said, and the question can be answered but not scored or learnt from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, cast

from campana.reading.examples import Example, Problems, Span
from campana.reading.locate import locate

_YES = {"true", "yes", "1", "1.0", "t", "y"}
_NO = {"false", "no", "0", "0.0", "f", "n", "", "none", "null"}

Row = Mapping[str, Any]


def examples_of(row: Row, place: str, problems: Problems) -> Iterator[Example]:
    """The questions of a row; what is none is counted in `problems`."""
    if isinstance(row.get("data"), list):
        for number, article in enumerate(row["data"], 1):
            yield from _article(article, f"{place} data[{number}]", problems)
    elif isinstance(row.get("paragraphs"), list):
        yield from _article(row, place, problems)
    elif isinstance(row.get("qas"), list):
        yield from _paragraph(row, "", place, problems)
    else:
        example = _question(row, row, _document(row, ""), place, problems)
        if example is not None:
            yield example


def _article(article: Any, place: str, problems: Problems) -> Iterator[Example]:
    if not isinstance(article, Mapping):
        problems.add("not an object", place)
        return
    row = cast("Row", article)
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list):
        problems.add("an article without paragraphs", place)
        return
    for number, paragraph in enumerate(cast("list[Any]", paragraphs), 1):
        yield from _paragraph(paragraph, _document(row, ""), f"{place} paragraphs[{number}]", problems)


def _paragraph(paragraph: Any, document: str, place: str, problems: Problems) -> Iterator[Example]:
    if not isinstance(paragraph, Mapping):
        problems.add("not an object", place)
        return
    row = cast("Row", paragraph)
    questions: Any = row.get("qas")
    if not isinstance(questions, list):
        problems.add("a paragraph without questions", place)
        return
    if _passage(row) is None:
        problems.add("no passage", place, len(cast("list[Any]", questions)))
        return
    document = document or _document(row, "")
    for number, item in enumerate(cast("list[Any]", questions), 1):
        if not isinstance(item, Mapping):
            problems.add("not an object", f"{place} qas[{number}]")
            continue
        example = _question(cast("Row", item), row, document, f"{place} qas[{number}]", problems)
        if example is not None:
            yield example


def _document(row: Row, otherwise: str) -> str:
    for name in ("title", "document", "document_id"):
        if isinstance(row.get(name), str) and row[name]:
            return row[name]
    return otherwise


def _passage(row: Row) -> str | None:
    for name in ("context", "passage", "context_text"):
        if isinstance(row.get(name), str):
            return row[name]
    return None


def _question(item: Row, holder: Row, document: str, place: str, problems: Problems) -> Example | None:
    passage = _passage(holder)
    question: Any = item.get("question", item.get("query_text"))
    if passage is None or not isinstance(question, str):
        problems.add("no passage" if passage is None else "no question", place)
        return None
    passage, question = _encodable(passage, place, problems), _encodable(question, place, problems)
    written: Any = item.get("id", item.get("qid", item.get("query_id")))
    identifier = f"row {place}" if written is None else str(written)
    if written is None:
        problems.add("no id", place)
    for name, text in (("empty passage", passage), ("empty question", question)):
        if not text.strip():
            problems.add(name, identifier)
    answers = _answers(item, "answers" if "answers" in item else "answer", identifier, problems)
    impossible = _impossible(item.get("is_impossible"), identifier, problems)
    plausible = _answers(item, "plausible_answers", identifier, problems) or []
    answerable, answers, plausible = _verdict(impossible, answers, plausible, identifier, problems)
    return Example(
        id=identifier,
        question=question,
        passage=passage,
        document=document or "passage:" + hashlib.sha256(passage.encode()).hexdigest()[:16],
        answerable=answerable,
        texts=tuple(text for text, _ in answers),
        spans=_spans(answers, passage, identifier, problems, "answer"),
        plausible=_spans(plausible, passage, identifier, problems, "plausible answer"),
        pair_id=None if item.get("pair_id") is None else str(item["pair_id"]),
    )


Written = list[tuple[str, int | None]]


def _verdict(
    impossible: bool | None, answers: Written | None, plausible: Written, identifier: str, problems: Problems
) -> tuple[bool | None, Written, Written]:
    """(is there an answer, the answers, the plausible answers), after settling contradictions."""
    if impossible is None:
        return (None if answers is None else bool(answers)), answers or [], plausible
    if impossible:
        if answers:
            problems.add("impossible, but with answers (taken as plausible ones)", identifier)
        return False, [], plausible + (answers or [])
    if not answers:
        problems.add("possible, but without an answer (not scored, not learnt from)", identifier)
        return None, [], plausible
    return True, answers, plausible


def _encodable(text: str, place: str, problems: Problems) -> str:
    """Lone surrogates, which no encoding has, become U+FFFD one for one: offsets stay."""
    clean = encodable(text)
    if clean is not text:
        problems.add("lone surrogates (replaced)", place)
    return clean


def encodable(text: str) -> str:
    """`text` itself where it can be encoded, else with U+FFFD for each lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _impossible(value: Any, identifier: str, problems: Problems) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        problems.add("is_impossible as text", identifier)
    word = str(value).strip().lower()
    if word in _YES:
        return True
    if word in _NO:
        return False if word not in ("", "none", "null") else None
    problems.add("is_impossible not understood (taken as not said)", identifier)
    return None


def _answers(item: Row, name: str, identifier: str, problems: Problems) -> Written | None:
    """(text, offset or None) of each answer that has a text; None where the row does not speak of answers, or none is understood."""
    value: Any = item.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return [(value, None)] if value.strip() else []
    if isinstance(value, Mapping):
        hub = cast("Row", value)
        if isinstance(hub.get("text"), str):
            value = [hub]
        else:
            texts, starts = _listed(hub.get("text")), _listed(hub.get("answer_start"))
            value = [{"text": text, "answer_start": start} for text, start in zip_longest(texts, starts[: len(texts)])]
    found: Written = []
    all_understood = True
    for answer in _listed(value):
        entry: Row = cast("Row", answer) if isinstance(answer, Mapping) else {"text": answer}
        text = entry.get("text")
        if text is not None and not isinstance(text, str):
            problems.add("answer that is not a text (left out)", identifier)
            all_understood = False
        elif text is not None and text.strip():
            found.append((encodable(text), _offset(entry.get("answer_start"), identifier, problems)))
    return found if found or all_understood else None


def _listed(value: Any) -> list[Any]:
    """A list as it is; anything else as a list of one, None as one of none."""
    return cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]


def _offset(value: Any, identifier: str, problems: Problems) -> int | None:
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        problems.add("answer_start that is not a number (the answer is looked for)", identifier)
        return None


def _spans(answers: Written, passage: str, identifier: str, problems: Problems, what: str) -> tuple[Span, ...]:
    spans: dict[Span, None] = {}
    for text, offset in answers:
        located = locate(text, offset, passage)
        if located is None:
            problems.add(f"{what} not in the passage (kept for scoring)", identifier)
            continue
        if located.how != "exact":
            problems.add(f"{what} not at its offset ({located.how})", identifier)
        spans[located.span] = None
    return tuple(spans)
