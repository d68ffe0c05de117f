"""Entity swap: a name that question and passage share becomes another of its kind. "When did Rome fall?" -> "When did Athens fall?".

The new name comes from the passage where one is safe: it stands neither in the answer's sentence nor in a sentence that shares a content
word with the rest of the question. Otherwise it comes from a short list of names that the passage has not.
"""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from campana.reading.edits.english import content_lemmas, parsed, require_spacy, with_article
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_NAMES = {
    "PERSON": ("Robert Miller", "Anna Schmidt", "Carlos Mendez", "Peter Novak", "Helen Marsh", "James Whitfield", "Laura Bennett"),
    "GPE": ("Portugal", "Bolivia", "Finland", "Kenya", "Vietnam", "Oslo", "Lima", "Toronto", "Cairo", "Nebraska"),
    "NORP": (),
    "ORG": (),
    "LOC": (),
}
"""Kind -> names used where the passage has none that fits."""


class Entity(Operator):
    """Swaps a named person, place, people or organisation (English; needs spaCy)."""

    kind: Literal["entity"] = "entity"

    def require(self) -> None:
        """The pinned spaCy model."""
        require_spacy()

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question, passage = example.question, example.passage
        names = [name for name in _names(parsed(question)) if question.count(name.text) == 1]
        if not names:
            return Refused("no named entity")
        known = _labels(passage)
        names = [name for name in names if known.get(name.text) == {name.label_} and not _in_a_name(name)]
        if not names:
            return Refused("its named entities do not stand in the passage as such")
        old = random.choice(names)
        others = _from_passage(old, example) or _from_list(old, passage)
        if not others:
            return Refused("no other entity of its kind that leaves no answer")
        start, end, new = with_article(question, old.start_char, old.end_char, random.choice(others))
        return Edit(start, end, question[start:end], new)


def _names(doc: Any) -> list[Any]:
    """Entities of the kinds that are swapped, without article and possessive ending."""
    found: list[Any] = []
    for entity in doc.ents:
        start, end = entity.start, entity.end
        while start < end and doc[start].pos_ == "DET":
            start += 1
        while end > start and (doc[end - 1].tag_ == "POS" or doc[end - 1].is_punct):
            end -= 1
        if entity.label_ in _NAMES and start < end and all(token.pos_ in {"PROPN", "ADJ", "ADP", "NOUN"} for token in doc[start:end]):
            found.append(doc.char_span(doc[start].idx, doc[end - 1].idx + len(doc[end - 1]), label=entity.label_))
    return [name for name in found if name[0].text[:1].isupper()]


def _labels(text: str) -> dict[str, set[str]]:
    """Name -> the kinds that it is taken for in a text: a parse that agrees with itself is seldom wrong."""
    found: dict[str, set[str]] = {}
    for name in _names(parsed(text)):
        found.setdefault(name.text, set()).add(name.label_)
    return found


def _in_a_name(name: Any) -> bool:
    """Whether it is a part of a longer name or term: "Jehovah's Witnesses", "Wisconsin v. Yoder", "NASA astronaut", "Grimm's law"."""
    doc, after = name.doc, name.end
    has_ending = after < len(doc) and doc[after].tag_ == "POS"
    following = doc[after + has_ending] if after + has_ending < len(doc) else None
    if following is not None and (following.pos_ == "PROPN" or following.text in {"v.", "law", "theorem", "theory", "-", "&", "and"}):
        return True
    before = doc[name.start - 1] if name.start else None
    if before is not None and (before.text in {"v.", "-", "&"} or (before.pos_ == "PROPN" and before.dep_ == "compound")):
        return True
    return name.label_ in {"ORG", "LOC"} and name.root.dep_ in {"compound", "nmod"}


def _from_passage(old: Any, example: Example) -> list[str]:
    doc, answer = parsed(example.passage), example.spans[0]
    rest = content_lemmas(token for token in old.doc if not old.start <= token.i < old.end)
    near = " ".join(sent.text for sent in doc.sents if sent.start_char < answer.end and answer.start < sent.end_char).casefold()
    asked = {token.lower_ for token in old.doc}
    labels, found = _labels(example.passage), dict[str, None]()
    for name in _names(doc):
        words = {token.lower_ for token in name}
        if labels[name.text] != {old.label_} or _in_a_name(name) or name.text.casefold() in near or words & asked or not _alike(name, old):
            continue
        standing = [sent for sent in doc.sents if name.text in sent.text]
        if any(content_lemmas(sent) & rest for sent in standing):
            continue
        found[name.text] = None
    return list(found)


def _alike(one: Any, other: Any) -> bool:
    """Whether they can stand in each other's place: number and word class of the head, with or without an article."""
    return one.root.tag_ == other.root.tag_ and _has_article(one) == _has_article(other)


def _has_article(name: Any) -> bool:
    return name.start > 0 and name.doc[name.start - 1].pos_ == "DET"


def _from_list(old: Any, passage: str) -> list[str]:
    if _has_article(old) or old.root.tag_ != "NNP":
        return []
    return [name for name in _NAMES[old.label_] if not any(word in passage for word in name.split())]
