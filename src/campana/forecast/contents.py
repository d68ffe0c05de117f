"""What the probe reads of models and data, with the stages' own code: configurations, row lengths, prompts.

Each function runs in a child process (`forecast.children`) and returns JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.forecast.children import silent
from campana.forecast.packs import RowLengths

PLACES_A_TOKEN = 300
"""What a layer keeps of a token for the backward pass, in pairs of tokens of its attention: 34 bytes a unit of width against 5 a head
(Korthikanti et al. 2022, section 4.1), so 218 where a head is 32 wide and 435 where it is 64. It only ranks steps."""


def bring(source: Any, local_path: Path | None, out_dir: Path, cache_dir: Path) -> dict[str, Any]:
    """Bring a model in; seconds and peak."""
    from campana.generation.meter import peak_memory_bytes
    from campana.models.bring import bring_in

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    bring_in(source, local_path, out_dir, silent, cache_dir)
    return {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}


def prepare_rows(spec: Any, model_dir: Path, data_paths: Mapping[str, Path], out_dir: Path) -> dict[str, Any]:
    """Prepare rows; their lengths, seconds and peak."""
    from campana.data.prepare import prepare
    from campana.generation.meter import peak_memory_bytes

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    prepare(
        model_dir=model_dir,
        data_paths=data_paths,
        portions=spec.portions,
        template_name=spec.template,
        max_length=spec.max_length,
        num_validation=spec.validation,
        subset_seed=spec.subset_seed,
        out_dir=out_dir,
        progress=silent,
    )
    took = {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}
    rows = {name: RowLengths.open(out_dir / f"{name}.arrow").as_json() for name in ("train", "validation")}
    return {**rows, **took}


def prompt_ids(spec: Any, model_dir: Path, suite_path: Path) -> dict[str, Any]:
    """{"turns"}: the token ids of every turn's prompt of every item, earlier answers left empty; {"shared"}: how many of them all first
    prompts begin with, where that is worth reading once."""
    from campana.data.suites import choose_items, read_suite
    from campana.data.templates import load_template
    from campana.generation.schedule import shared_ids
    from campana.models.load import load_tokenizer

    template = load_template(spec.template, load_tokenizer(model_dir))
    turns: list[list[list[int]]] = []
    for item in choose_items(read_suite(suite_path, spec.suite_format), spec.max_items):
        ends = [place for place, message in enumerate(item.messages) if message["role"] == "user"]
        turns.append([template.prompt(_until(item.messages, end)) for end in ends])
    return {"turns": turns, "shared": len(shared_ids([tuple(each[0]) for each in turns]))}


def reading_work(
    specs: Sequence[Any], start_dir: Path, train_path: Path, held_out_path: Path, made_path: Path | None
) -> list[dict[str, Any]]:
    """What each of some `read_train` stages of one table reads: tokens of all steps, the questions of the step that takes most memory and
    the tokens that it reads, and tokens of the held-out questions.
    """
    from campana.reading.files import load_examples
    from campana.reading.training.data import training_data
    from campana.reading.training.plan import drawn_steps, read_rows
    from campana.reading.training.questions import TrainingTable

    first = specs[0]
    reader = _reader(start_dir, first)
    start = time.perf_counter()
    data = training_data(train_path, made_path, first.made_as)
    held_out = load_examples(held_out_path)
    before = _resident_bytes()
    table = TrainingTable.build(data.examples, data.families, reader.layout, reader.settings)
    tested = TrainingTable.build(held_out, (), reader.layout, reader.settings)
    took = {"seconds": time.perf_counter() - start, "table_bytes": max(0, _resident_bytes() - before)}
    found: list[dict[str, Any]] = []
    for spec in specs:
        plan = drawn_steps(table, spec.questions, spec.batch_tokens, spec.steps, spec.seed)
        steps: list[int] = []
        places: list[int] = []
        for step, windows in enumerate(plan):
            _, rows = read_rows(step, windows, table.triples, spec.objective, spec.plain_steps, spec.seed)
            lengths = table.lengths[list(rows.windows)]
            steps.append(int(lengths.sum()))
            places.append(int((lengths * (lengths + PLACES_A_TOKEN)).sum()))
        largest = int(np.argmax(places))
        heavy = [data.examples[example].id for example in dict.fromkeys(table.group.of_example[plan[largest]].tolist())]
        validated = int(tested.lengths[tested.units(spec.questions)].sum())
        held = {"validated_tokens": validated, "held_out_tokens": int(tested.lengths.sum())}
        found.append({"tokens": sum(steps), "heavy": heavy, "heavy_tokens": steps[largest], **held, **took})
    return found


def suite_work(spec: Any, start_dir: Path, suite_path: Path, max_items: int | None) -> dict[str, Any]:
    """Questions of a reading suite, and the tokens of their windows as a reader of this training reads them."""
    from campana.reading.suite import questions_of
    from campana.reading.windows import groups

    reader = _reader(start_dir, spec)
    examples = questions_of(suite_path, max_items)
    tokens = sum(int(group.lengths.sum()) for group in groups(examples, reader.layout, reader.settings))
    return {"questions": len(examples), "tokens": tokens}


def _reader(start_dir: Path, spec: Any) -> Any:
    """A reader that `spec`, a `read_train` stage, begins with."""
    from campana.reading.reader import Reader
    from campana.reading.span_model import load_span_model

    model, tokenizer, _ = load_span_model(start_dir)
    return Reader.of(model, tokenizer, {"settings": spec.settings.as_dict()})


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _until(messages: Sequence[Mapping[str, str]], end: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for message in messages[: end + 1]:
        if message["role"] == "user" and found and found[-1]["role"] == "user":
            found.append({"role": "assistant", "content": ""})
        found.append(dict(message))
    return found
