"""What is known of a study's work before it runs: shapes, row lengths, prompt and answer lengths. From the store, else from cached facts.

    known = Known(store, Facts(cache_dir))
    known.shape(tune.inputs["model"])        # None: nobody has seen that model's configuration yet

It owns the names of facts and profiles, and where each figure comes from. It measures nothing; `forecast.probe` finds what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from campana.core.index import Entry, Index
from campana.core.spec import Source, Stage
from campana.core.store import Store
from campana.data.packing import shuffled
from campana.errors import CampanaError
from campana.forecast.calibration import Facts
from campana.forecast.packs import RowLengths
from campana.models.folder import read_json
from campana.models.shape import Shape
from campana.parts import Part

_ASKED = ("suite_format", "template", "max_items")
"""Fields of a `generate` stage that decide its prompts."""

Turns = list[list[int]]
"""One list an item: a number for each of its turns."""


def input_stage(stage: Stage, name: str) -> Stage | None:
    """An input that is a stage."""
    value = stage.inputs.get(name)
    return value if isinstance(value, Stage) else None


def family(spec: Any) -> str:
    """Of `tune` stages whose time and memory follow from one measurement by the cost model: ranks and scales do not matter, kinds do."""
    method: Mapping[str, Any] = spec.method.identity()
    kept = {name: method[name] for name in ("kind", "targets", "dora") if name in method}
    rest = {"dropout": bool(method.get("dropout")), "precision": spec.precision, "several": packs_are_several(spec)}
    return json.dumps({**kept, **rest}, sort_keys=True)


def packs_are_several(spec: Any) -> bool:
    """Whether a step is made of several packs: gradients then lie beside the activations of the next."""
    return spec.batch_tokens > spec.micro_batch_tokens


def shape_name(shape: Shape) -> str:
    """A short name of a shape."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(shape), sort_keys=True).encode()).hexdigest()[:12]


def tune_profile_name(shape: Shape, spec: Any) -> str:
    """Of a `tune` stage's spec."""
    return f"{shape_name(shape)} {family(spec)}"


def answer_profile_name(shape: Shape, spec: Any) -> str:
    """Of a `generate` stage's spec. How many answers are under way is in the passes, not here."""
    engine: Part = spec.engine
    return f"{shape_name(shape)} {json.dumps({'engine': getattr(engine, 'kind', ''), 'precision': spec.precision})}"


def encoder_of(stage: Stage) -> Stage:
    """The `model` stage that a reader's training or answering begins with."""
    before = input_stage(stage, "reader") or input_stage(stage, "start")
    return stage if before is None else encoder_of(before)


def read_train_profile_name(stage: Stage) -> str:
    """Of a `read_train` stage."""
    spec: Any = stage.spec
    objective: Part = spec.objective
    kept = {"objective": getattr(objective, "kind", ""), "dropout": bool(spec.dropout), "precision": spec.precision}
    rest = {"batch": spec.batch_tokens, "max_length": spec.max_length}
    return f"{encoder_of(stage).key} {json.dumps({**kept, **rest})}"


def read_answer_profile_name(stage: Stage) -> str:
    """Of a `read_answer` stage."""
    spec: Any = stage.spec
    return f"{encoder_of(stage).key} {spec.precision} {_windows(_training(stage))}"


def reading_table(stage: Stage) -> str:
    """`read_train` stages of one name learn from the same table of windows."""
    spec: Any = stage.spec
    files = {name: each.identity for name, each in stage.inputs.items() if isinstance(each, Source)}
    made_as = spec.made_as if "made" in files else ""
    return json.dumps([files, encoder_of(stage).key, made_as, _windows(spec)], sort_keys=True)


def reading_fact(stage: Stage) -> str:
    """{"tokens", "heavy", "heavy_tokens", "validated_tokens", "held_out_tokens", "seconds", "table_bytes"}; for all seeds."""
    spec: Any = stage.spec
    drawn = {name: getattr(spec, name) for name in ("questions", "batch_tokens", "steps", "plain_steps")}
    return f"reading {reading_table(stage)} {json.dumps(drawn)} {json.dumps(spec.objective.identity(), sort_keys=True)}"


def suite_fact(stage: Stage) -> str:
    """{"questions", "tokens"}: of a `read_answer` stage."""
    spec: Any = stage.spec
    suite = stage.inputs["suite"]
    assert isinstance(suite, Source)
    return f"suite {suite.identity} {encoder_of(stage).key} {spec.max_items} {_windows(_training(stage))}"


def _training(answering: Stage) -> Any:
    """Fields of the training whose reader answers."""
    trained = input_stage(answering, "reader")
    assert trained is not None
    return trained.spec


def _windows(spec: Any) -> str:
    return json.dumps(spec.settings.as_dict(), sort_keys=True)


def model_fact(model: Stage) -> str:
    """{"config", "tokenizer_bytes", "seconds", "peak_memory_bytes"}"""
    return f"model {model.key}"


def rows_fact(prepare: Stage) -> str:
    """{"train", "validation", "seconds", "peak_memory_bytes", "disk_bytes"}"""
    return f"rows {prepare.key}"


def prompts_fact(generate: Stage) -> str:
    """{"turns"}: prompt tokens of each turn of each item, earlier answers left empty."""
    return "prompts " + json.dumps(_asked(generate), sort_keys=True)


def answers_fact(generate: Stage) -> str:
    """{"answers"}: new tokens of some answers of the untuned model."""
    spec: Any = generate.spec
    return "answers " + json.dumps({**_asked(generate), "most": spec.max_new_tokens}, sort_keys=True)


def answers_name(generate: Stage) -> str:
    """Stages of one name are predicted to give answers of the same lengths."""
    tuned = input_stage(generate, "tuned")
    prepare = None if tuned is None else input_stage(tuned, "data")
    return f"{answers_fact(generate)} {'' if prepare is None else prepare.key}"


def _asked(generate: Stage) -> dict[str, Any]:
    spec: Any = generate.spec
    suite, model = generate.inputs["suite"], generate.inputs["model"]
    assert isinstance(suite, Source)
    assert isinstance(model, Stage)
    return {"suite": suite.identity, "model": model.key, **{name: getattr(spec, name) for name in _ASKED}}


class Known:
    """Reads each thing once."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store = store
        self.facts = facts
        self._shapes: dict[str, Shape | None] = {}
        self._rows: dict[str, tuple[RowLengths, RowLengths] | None] = {}
        self._turns: dict[str, Turns | None] = {}
        self._answers: dict[str, Turns] = {}
        self._answered: dict[str, list[Entry]] | None = None
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """Of the store."""
        if self._index is None:
            self._index = Index.load(self._store)
        return self._index

    # Models

    def shape(self, model: Stage) -> Shape | None:
        """The model's shape; None: not seen yet, or not a decoder that the cost model knows."""
        if model.key not in self._shapes:
            config = self.config(model)
            self._shapes[model.key] = None
            with contextlib.suppress(CampanaError):
                self._shapes[model.key] = Shape.from_config(config) if config else None
        return self._shapes[model.key]

    def config(self, model: Stage) -> dict[str, Any] | None:
        """The model's config.json: stored, of a folder of this machine, or from a fact."""
        with contextlib.suppress(CampanaError, OSError):
            if self._store.has(model.key):
                return read_json(self._store.path(model.key) / "config.json")
            files = model.inputs.get("files")
            if isinstance(files, Source) and (files.path / "config.json").is_file():
                return read_json(files.path / "config.json")
        fact = self.facts.get(model_fact(model))
        return None if fact is None else fact.get("config")

    def tokenizer_bytes(self, model: Stage) -> int | None:
        """Of the model's files beside its weights."""
        with contextlib.suppress(CampanaError, OSError):
            if self._store.has(model.key):
                files = self._store.manifest(model.key).files
                return sum(file.size for name, file in files.items() if not name.endswith(".safetensors"))
            source = model.inputs.get("files")
            if isinstance(source, Source) and source.path.is_dir():
                return sum(path.stat().st_size for path in source.path.iterdir() if path.suffix not in (".safetensors", ".gguf"))
        fact = self.facts.get(model_fact(model))
        return None if fact is None else fact.get("tokenizer_bytes")

    # Rows

    def rows(self, prepare: Stage) -> tuple[RowLengths, RowLengths] | None:
        """Training and held-out rows of a `prepare` stage; None: not seen yet."""
        if prepare.key not in self._rows:
            self._rows[prepare.key] = self._read_rows(prepare)
        return self._rows[prepare.key]

    def _read_rows(self, prepare: Stage) -> tuple[RowLengths, RowLengths] | None:
        fact = self.facts.get(rows_fact(prepare))
        if fact is not None:
            return RowLengths.from_json(fact["train"]), RowLengths.from_json(fact["validation"])
        if not self._store.has(prepare.key):
            return None
        folder = self._store.path(prepare.key)
        train, validation = RowLengths.open(folder / "train.arrow"), RowLengths.open(folder / "validation.arrow")
        self.facts.put(rows_fact(prepare), {"train": train.as_json(), "validation": validation.as_json()})
        return train, validation

    # Answers

    def prompts(self, generate: Stage) -> Turns | None:
        """Prompt tokens of each turn of each item, earlier answers left out."""
        name = prompts_fact(generate)
        if name not in self._turns:
            fact = self.facts.get(name)
            self._turns[name] = self._stored_prompts(generate) if fact is None else fact["turns"]
        return self._turns[name]

    def shared(self, generate: Stage) -> int:
        """Tokens that all its first prompts begin with, and that an engine may read once: from their ids, else as a stored stage that
        answered the same in the same way read them; 0 where neither is known."""
        fact = self.facts.get(prompts_fact(generate))
        if fact is not None:
            return fact.get("shared", 0)
        spec: Any = generate.spec
        way = (spec.precision, spec.engine.kind)
        for entry in self._alike(generate):
            if (entry.recipe.get("precision"), entry.recipe.get("engine", {}).get("kind")) != way:
                continue
            with contextlib.suppress(CampanaError, OSError, ValueError):
                meter = self._store.manifest(entry.key).meter
                return meter.get("shared_tokens", 0) // max(1, meter["num_items"] - 1)
        return 0

    def _stored_prompts(self, generate: Stage) -> Turns | None:
        """Exact where another stage has answered the same suite with the same tokenizer, a turn an item."""
        for entry in self._alike(generate):
            rows = self._answer_rows(entry)
            if rows and all(len(row["turns"]) == 1 for row in rows):
                return [[int(row["num_prompt_tokens"])] for row in rows]
        return None

    def answers(self, generate: Stage, prompts: Turns) -> Turns:
        """New tokens of each answer, as far as can be told: those that others gave, else as in the training rows, else the most."""
        most: int = generate.spec.max_new_tokens  # type: ignore[attr-defined]  # the spec of a `generate` stage
        tuned = input_stage(generate, "tuned")
        name = answers_name(generate)
        if name not in self._answers:
            likely = self._likely_answers(generate, tuned, [len(turns) for turns in prompts], most)
            self._answers[name] = likely or [[most] * len(turns) for turns in prompts]
        return self._answers[name]

    def _likely_answers(self, generate: Stage, tuned: Stage | None, turns: list[int], most: int) -> Turns | None:
        for entry in self._alike(generate):
            same = entry.recipe.get("max_new_tokens") == most and ("tuned" in entry.recipe["inputs"]) == (tuned is not None)
            rows = self._answer_rows(entry) if same else []
            if len(rows) == len(turns):
                return [_split(int(row["num_completion_tokens"]), num) for row, num in zip(rows, turns, strict=True)]
        prepare = None if tuned is None else input_stage(tuned, "data")
        rows = None if prepare is None else self.rows(prepare)
        if rows is not None and len(rows[0]):
            return _spread(rows[0].supervised.tolist(), turns, most)
        fact = self.facts.get(answers_fact(generate))
        return None if fact is None or tuned is not None else _spread(fact["answers"], turns, most)

    def _alike(self, generate: Stage) -> list[Entry]:
        """Stored stages that answered the same items with the same tokenizer, newest first."""
        if self._answered is None:
            self._answered = {}
            for entry in self.index.by_kind.get("generate", []):
                inputs = entry.recipe["inputs"]
                asked = {"suite": inputs.get("suite"), "model": inputs.get("model"), **{name: entry.recipe.get(name) for name in _ASKED}}
                self._answered.setdefault(json.dumps(asked, sort_keys=True), []).append(entry)
        return self._answered.get(json.dumps(_asked(generate), sort_keys=True), [])

    def _answer_rows(self, entry: Entry) -> list[dict[str, Any]]:
        with contextlib.suppress(CampanaError, OSError, ValueError):
            text = (self._store.path(entry.key) / "answers.jsonl").read_text(encoding="utf-8")
            return [json.loads(line) for line in text.split("\n") if line]
        return []


def _split(total: int, num_turns: int) -> list[int]:
    """An item's new tokens, shared evenly by its turns; at least one each."""
    return [max(1, total // num_turns)] * num_turns


def _spread(lengths: Sequence[int], turns: list[int], most: int) -> Turns:
    """Lengths of the same distribution for all turns, in an order that has nothing to do with the prompts; at most `most`."""
    count = sum(turns)
    if not count:
        return [[] for _ in turns]
    places = (np.arange(count) + 0.5) / count
    drawn = np.quantile(np.asarray(lengths, np.float64), places)
    drawn = np.clip(np.rint(drawn), 1, most).astype(np.int64)[shuffled(count, 0, 0)].tolist()
    found: Turns = []
    at = 0
    for num in turns:
        found.append(drawn[at : at + num])
        at += num
    return found
