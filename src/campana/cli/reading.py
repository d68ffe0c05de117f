"""What `campana read` does: open files and readers, run the library, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from campana.errors import DataError, UserError
from campana.models.load import Precision
from campana.reading.examples import Example, Problems, of_documents
from campana.reading.files import load_examples, read_predictions
from campana.reading.scoring import Scores, Style, score_predictions, style_of, summary


def say(text: str) -> None:
    """To people: stderr."""
    sys.stderr.write(text + "\n")


def questions(paths: Sequence[Path], documents: Sequence[str] | None = None) -> tuple[Example, ...]:
    """The questions of the files, problems told on stderr; only of the documents where any are named."""
    problems = Problems()
    examples = tuple(example for path in paths for example in load_examples(path, problems))
    for line in problems.lines():
        say(line)
    if documents is None:
        return examples
    names = named(documents)
    known = {example.document for example in examples}
    if absent := [name for name in names if name not in known]:
        raise DataError(
            f"no document {absent[0]!r}" + (f" (and {len(absent) - 1} more)" if absent[1:] else ""),
            where=", ".join(str(path) for path in paths),
            hint=f"documents here: {', '.join(sorted(known)[:8])}, ...",
        )
    return of_documents(examples, names)


def named(documents: Iterable[str]) -> list[str]:
    """Titles as given; `@file` stands for the file's lines."""
    names: list[str] = []
    for word in documents:
        names += [line for line in text_of(word).split("\n") if line.strip()] if word.startswith("@") else [word]
    return names


def text_of(word: str) -> str:
    """A text as given; `@path` stands for a file's content and `-` for stdin's."""
    if word == "-":
        return sys.stdin.read()
    if not word.startswith("@"):
        return word
    try:
        return Path(word[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the text: {error}", where=word[1:]) from error


def choice(word: str, kind: Any, what: str) -> Any:
    """`word` if it is one of a Literal's values."""
    known = get_args(kind)
    if word not in known:
        raise UserError(f"unknown {what} {word!r}", hint=f"known: {', '.join(known)}")
    return word


def score(
    file: Path,
    model: Path | None,
    predictions: Path | None,
    documents: Sequence[str] | None,
    style: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """`campana read score`."""
    if (model is None) == (predictions is None):
        raise UserError("give either --model or --predictions", hint="campana read score FILE --model DIR")
    chosen: Style | None = None if style is None else choice(style, Style, "style")
    examples = questions([file], documents)
    if predictions is not None:
        _score_predictions(examples, predictions, chosen or style_of(examples), as_json)
        return
    from campana.reading.evaluate import evaluate
    from campana.reading.reader import Reader

    result = evaluate(Reader.load(cast("Path", model), choice(precision, Precision, "precision")), examples, chosen)
    if as_json:
        sys.stdout.write(json.dumps(result.as_dict(), ensure_ascii=False) + "\n")
        return
    rows = [(f"{at.name} ({at.threshold:.3f})", at.scores) for at in result.results]
    sys.stdout.write(table(rows))
    if result.auroc is not None:
        sys.stdout.write(f"AUROC {result.auroc:.4f}; area under risk-coverage {result.selective.area:.4f}\n")
    if result.probability is not None:
        sys.stdout.write(
            f"P(no answer): Brier {result.probability.brier:.4f}, calibration error {result.probability.calibration_error:.4f}\n"
        )
    if result.num_unlabelled:
        say(f"{result.num_unlabelled} questions do not say whether they have an answer: not scored")


def _score_predictions(examples: Sequence[Example], path: Path, style: Style, as_json: bool) -> None:
    rows, missing = score_predictions(examples, read_predictions(path), style)
    scores = summary(rows)
    if as_json:
        told = {"style": style, "scores": asdict(scores), "num_missing": len(missing), "missing": missing[:10]}
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(table([("predictions", scores)]))
    if missing:
        say(f"{len(missing)} questions have no prediction and are not scored (first: {', '.join(missing[:3])})")


def table(rows: Sequence[tuple[str, Scores]]) -> str:
    """Scores for people: a line a threshold, and what a reader that never answers would score."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}     EM     F1  HasAns EM  HasAns F1  NoAns  questions"]
    for name, scores in rows:
        cells = (scores.exact, scores.f1, scores.has_answer_exact, scores.has_answer_f1, scores.no_answer_accuracy)
        shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        lines.append(
            f"{name:{width}}  {shown[0]:>5}  {shown[1]:>5}  {shown[2]:>9}  {shown[3]:>9}  {shown[4]:>5}  {scores.num_questions:>9}"
        )
    empty = rows[0][1].always_empty_exact
    if empty is not None:
        lines.append(f"{'never answering':{width}}  {empty:5.2f}  {empty:5.2f}  {0:9.2f}  {0:9.2f}  {100:5.1f}")
    return "\n".join(lines) + "\n"


def calibrate(file: Path, model: Path, documents: Sequence[str] | None, kind: str, objective: str) -> None:
    """`campana read calibrate`."""
    from campana.reading.calibration import Kind
    from campana.reading.evaluate import fitted
    from campana.reading.reader import Reader, write_stored

    if objective not in ("f1", "exact"):
        raise UserError(f"unknown objective {objective!r}", hint="known: f1, exact")
    chosen = choice(kind, Kind, "calibration")
    reader = fitted(Reader.load(model), questions([file], documents), chosen, objective)
    write_stored(model, reader.stored())
    assert reader.threshold is not None
    at = reader.threshold
    sys.stdout.write(
        f"threshold {at.value:.4f}: {objective} {at.reached:.2f} on {at.num_questions} questions of {len(at.documents)} documents\n"
    )


def export(
    model: Path, output: Path, file: Path | None, documents: Sequence[str] | None, int8: bool, bound: float | None, as_json: bool
) -> None:
    """`campana read export`."""
    from campana.reading.export import export as write
    from campana.reading.export_parity import BOUND

    if int8 and file is None:
        raise UserError(
            "int8 changes the answers: give a FILE of held-out questions to measure by how much",
            hint=f"campana read export held-out.json --model {model} --output {output} --int8",
        )
    held_out = questions([file], documents) if file else ()
    made = write(model, output, held_out, int8=int8, bound=BOUND if bound is None else bound)
    if as_json:
        sys.stdout.write(json.dumps(made.facts, ensure_ascii=False) + "\n")
        return
    parity, loss = made.parity, made.loss
    sys.stdout.write(
        f"{output}: {sum(item.stat().st_size for item in output.iterdir()) / 1e6:.1f} MB\n"
        f"parity with torch: largest difference of a logit {parity.largest_difference:.2g} (bound {parity.bound:g}), "
        f"{parity.num_equal_spans} of {parity.num_windows} best spans equal, {parity.num_tied_spans} tied\n"
    )
    if loss is not None:
        name = f"({loss.before.name} {loss.before.threshold:.3f})"
        sys.stdout.write(table([(f"fp32 {name}", loss.before.scores), (f"int8 {name}", loss.after.scores)]))
        sys.stdout.write(f"same answer to {loss.num_same_answers} of {loss.num_asked} questions; margins {loss.median_margin_shift:+.3f}\n")


def serve(model: Path, host: str, port: int, precision: str, body_bytes: int, seconds: float) -> None:
    """`campana read serve`."""
    try:
        from campana.reading.serve import Limits, serve_reader
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise UserError("serving needs FastAPI and uvicorn, which are not installed", hint="pip install 'campana[serve]'") from error
    from campana.reading.reader import Reader

    reader = Reader.load(model, choice(precision, Precision, "precision"))
    serve_reader(reader, model.resolve().name, host, port, Limits(body_bytes=body_bytes, seconds=seconds))
