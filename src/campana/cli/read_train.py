"""`campana read train`: one reader from files of questions, by the stage that studies use. A killed run goes on with the same command.

The work lies in `<output>.part` until the reader is whole: the encoder, the reader of the first phase, checkpoints.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from campana.cli.pace import Pace, seconds_between
from campana.cli.reading import say
from campana.core.digest import digest_path
from campana.core.lock import KeyLock
from campana.core.spec import Context, Resources
from campana.errors import UserError
from campana.reading.files import load_examples
from campana.reading.threshold import refuse_one_kind
from campana.reading.training.data import refuse_shared
from campana.stages.read_train import ReadTrain


def train(
    files: Mapping[str, Path], model: str, output: Path, objective: str, first: Mapping[str, Any] | None, second: Mapping[str, Any]
) -> None:
    """`campana read train`. `files`: train, held_out and, where there are some, made. `first` and `second`: fields of the phases'
    `ReadTrain`; None where there is no first phase.
    """
    if output.exists():
        raise UserError("it exists already", where=str(output), hint="name another folder with --output, or remove it")
    phases = [] if first is None else [_spec(objective="cross_entropy", questions="answerable", fit="none", **first)]
    phases.append(_spec(objective=_objective(objective), **second))
    held_out = load_examples(files["held_out"])
    refuse_shared(load_examples(files["train"]), held_out, "both trained on and held out")
    refuse_one_kind(held_out)
    part = output.with_name(output.name + ".part")
    lock = KeyLock.acquire(part.with_name(part.name + ".lock"))
    if lock is None:
        raise UserError("another run trains this reader now", where=str(part), hint="wait for it, or name another folder with --output")
    with lock:
        content = {name: digest_path(path) for name, path in files.items()}
        _require_same(part, {"model": model, "files": content, "phases": [phase.model_dump(mode="json") for phase in phases]})
        reader = _encoder(model, part)
        for number, spec in enumerate(phases, 1):
            used = [name for name in files if name != "made" or number == len(phases)]
            inputs = {"start": reader, **{name: files[name] for name in used}}
            reader = _phase(spec, inputs, part / f"phase{number}", f"phase {number} of {len(phases)}")
        told = json.loads((reader / "tune.json").read_text(encoding="utf-8"))
        for warning in told["warnings"]:
            say(f"careful: {warning}")
        (reader / "model").rename(output)
        shutil.rmtree(part)
    say(f"{output}: {told['steps']} steps in the last phase, held-out loss {told['final_validation_loss']:.3f}")
    say(f"next: campana read score QUESTIONS --model {output}")


def _spec(**fields: Any) -> ReadTrain:
    try:
        return ReadTrain.model_validate(fields)
    except ValidationError as error:
        found = error.errors()[0]
        raise UserError(str(found["msg"]), where=".".join(map(str, found["loc"])), hint="campana read train --help") from None


def _objective(text: str) -> Any:
    """A kind, or JSON with its fields."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where="--objective", hint='--objective \'{"kind": "spancl", "weight": 0.5}\'') from None


def _require_same(part: Path, recipe: Mapping[str, Any]) -> None:
    """Note what is trained, or find the same noted: a run of another recipe must not go on from its checkpoints."""
    note = part / "recipe.json"
    text = json.dumps(recipe, indent=1, ensure_ascii=False)
    if not note.is_file():
        part.mkdir(parents=True, exist_ok=True)
        note.write_text(text, encoding="utf-8")
    elif note.read_text(encoding="utf-8") == text:
        return
    elif not (part / "phase1").is_dir():  # nothing was trained yet
        note.write_text(text, encoding="utf-8")
    else:
        raise UserError("an unfinished run with other files or options lies here", where=str(part), hint="remove it, or repeat its options")


def _encoder(model: str, part: Path) -> Path:
    """The folder of the encoder: as given, or brought in."""
    if Path(model).is_dir():
        return Path(model)
    folder = part / "encoder"
    if not folder.is_dir():
        from campana.models.bring import bring_in
        from campana.models.parse import parse_source

        source, path = parse_source(model, Path())
        half = part / "encoder.part"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        say(f"bringing in {model}")
        bring_in(source, path, half, lambda *_, **__: None)
        half.rename(folder)
    return folder


def _phase(spec: ReadTrain, inputs: Mapping[str, Path], folder: Path, name: str) -> Path:
    """Train, or find it trained; the folder with `model/` and `tune.json`."""
    out = folder / "done"
    if out.is_dir():
        return out
    work, scratch = folder / "out", folder / "scratch"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    spec.run(Context(inputs, work, scratch, Resources(), _Progress(name)))
    work.rename(out)
    shutil.rmtree(scratch)
    return out


class _Progress:
    """Steps, loss and time left on stderr: redrawn on a terminal, else a line at most every half minute."""

    def __init__(self, name: str) -> None:
        self._name, self._terminal = name, sys.stderr.isatty()
        self._pace, self._last = Pace(), time.monotonic()

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total`."""
        line = f"{self._name}: {self._pace.told(done, total, unit, figures)}"
        now = time.monotonic()
        if done < total and now - self._last < seconds_between(terminal=self._terminal):
            return
        self._last = now
        sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else line + "\n")
        if self._terminal and done >= total:
            sys.stderr.write("\n")
        sys.stderr.flush()
