"""`campana read edit`: counterparts of the answerable questions of a file, a family a line; how many each operator made at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from campana.cli.counted import counted
from campana.cli.reading import choice, say
from campana.errors import UserError
from campana.models.load import Precision
from campana.parts import find, known
from campana.reading.edits.make import limited, make_family
from campana.reading.edits.operator import Operator
from campana.reading.examples import Example, Problems
from campana.reading.files import no_question, read_examples
from campana.reading.triples import Family, write_families


def edit(
    file: Path,
    output: Path,
    operators: str | None,
    seed: int,
    per_question: int | None,
    reader: Path | None,
    precision: str,
    wordnet: str,
) -> None:
    """`campana read edit`. `precision` is the filter's."""
    chosen = chosen_operators(operators, wordnet)
    problems, made, verdicts = Problems(), Counter[str](), Counter[str]()
    families = _families(read_examples(file, problems), chosen, seed, per_question, problems)
    if reader is not None:
        from campana.reading.edits.judge import judged
        from campana.reading.reader import Reader

        families = judged(families, Reader.load(reader, choice(precision, Precision, "precision")), problems)
    part = output.with_name(output.name + ".part")
    count = write_families(part, counted(_tallied(families, made, verdicts), "questions"))
    for line in problems.lines():
        say(line)
    if not count:
        part.unlink()
        raise no_question(file, problems)
    part.replace(output)
    say(
        f"{output}: {count} questions, {sum(made.values())} counterparts: "
        + ", ".join(f"{kind} {num}" for kind, num in sorted(made.items()))
    )
    say("verdicts: " + ", ".join(f"{verdict} {num}" for verdict, num in sorted(verdicts.items())))


def chosen_operators(names: str | None, wordnet: str) -> list[Operator]:
    """The named operators, or all of which everything is installed; those left out are told on stderr.

    UserError for an unknown name, and for a named operator that needs what is not installed.
    """
    if names is None:
        return [made for kind in known("edit") if _is_ready(kind, made := _made(kind, wordnet))]
    made = [_made(kind.strip(), wordnet) for kind in names.split(",") if kind.strip()]
    for operator in made:
        operator.require()
    if not made:
        raise UserError("no operator is named", hint=f"known: {', '.join(known('edit'))}")
    return made


def _made(kind: str, wordnet: str) -> Operator:
    part = find("edit", kind)
    made = part.model_validate({"wordnet": wordnet} if "wordnet" in part.model_fields else {})
    assert isinstance(made, Operator)
    return made


def _is_ready(kind: str, operator: Operator) -> bool:
    try:
        operator.require()
    except UserError as error:
        say(f"left out: {kind}: {error.message}; {error.hint}")
        return False
    return True


def _families(
    examples: Iterable[Example], operators: Sequence[Operator], seed: int, per_question: int | None, problems: Problems
) -> Iterator[Family]:
    for example in examples:
        family = make_family(example, operators, [seed], problems)
        if family is not None:
            yield family if per_question is None else limited(family, per_question, seed)


def _tallied(families: Iterable[Family], made: Counter[str], verdicts: Counter[str]) -> Iterator[Family]:
    for family in families:
        made.update(other.operator for other in family.counterparts)
        verdicts.update(other.verdict for other in family.counterparts)
        yield family
