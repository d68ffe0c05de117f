"""The JSON Schema of report.json, `campana.report/1`: `campana describe --schema report` prints it.

Objects are closed, so a field that is not described here cannot slip in; `measure` and the data reports have schemas of their own.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(said: str = "", **fields: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"description": said, **found} if said else found


def _map(of: Schema, said: str = "") -> Schema:
    return {"type": "object", "additionalProperties": of, **({"description": said} if said else {})}


def _list(of: Schema, said: str = "") -> Schema:
    return {"type": "array", "items": of, **({"description": said} if said else {})}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
AMOUNT: Schema = {"type": ["number", "null"], "minimum": 0}
YES_NO: Schema = {"type": "boolean"}
KEY: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
ANY: Schema = {}
ESTIMATE = _or_null(
    _object(
        "An estimate; null before `measure` is built. Bounds are null where they cannot be told.",
        **{name: {"type": ["number", "null"]} for name in ("mean", "low", "high", "standard_error", "degrees_of_freedom")},
    )
)
MONEY = _object(
    "What this run took.",
    seconds={**NUMBER, "description": "Wall clock, failed and killed tries included."},
    failed_seconds={**NUMBER, "description": "Of them, in tries that failed or were killed."},
    num_failed={**COUNT, "description": "Such tries."},
    money={**AMOUNT, "description": "Machine hours x price; null without prices."},
    energy_joules={**AMOUNT, "description": "Of tuning; null where a machine that tuned does not tell it."},
)
CHARGED = _object(
    "Work that is charged, shared work by its share.",
    complete={**YES_NO, "description": "All of it is built; else the figures are what was spent so far."},
    tokens={**AMOUNT, "description": "Of training and answering."},
    supervised_tokens=AMOUNT,
    flops={**AMOUNT, "description": "Null where a model's shape is not known to the cost model."},
    measured=MONEY,
)
LINE = _object(
    "One stage.",
    key=KEY,
    label=TEXT,
    kind=TEXT,
    part={"enum": ["model", "data", "search", "tuning", "generation", "checking", "measuring"]},
    arms=_list(TEXT, "Arms among which it is divided."),
    built=YES_NO,
    tokens=AMOUNT,
    supervised_tokens=AMOUNT,
    flops=AMOUNT,
    measured=_object(
        seconds=NUMBER,
        failed_seconds=NUMBER,
        num_failed=COUNT,
        training_seconds=AMOUNT,
        peak_memory_bytes=AMOUNT,
        energy_joules={**AMOUNT, "description": "By the machine's own counters; null where it has none."},
    ),
)
COSTS = _object(
    "The ledger: arms add up to the total.",
    currency=_or_null(TEXT),
    lines=_list(LINE),
    arms=_map(
        _object(
            parts=_map(CHARGED, "By part of the cost."),
            making={**CHARGED, "description": "Search and tuning together."},
            total=CHARGED,
            measured=_object(peak_memory_bytes=AMOUNT, tokens_per_second={**AMOUNT, "description": "Supervised tokens, while training."}),
        )
    ),
    total=CHARGED,
)
ARM = _object(
    name=TEXT,
    short={**TEXT, "description": "Its levels alone."},
    levels=_map(TEXT),
    baseline=YES_NO,
    recipe=_map(ANY, "Dotted field -> resolved value."),
    score=ESTIMATE,
    micro=ESTIMATE,
    macro=ESTIMATE,
    learning_rate=_or_null(
        _object(
            value={"type": ["number", "null"]},
            searched=YES_NO,
            at_edge={**YES_NO, "description": "The best rate is the lowest or highest tried."},
            warnings=_list(TEXT),
            candidates=_list(_object(learning_rate=NUMBER, validation_loss={"type": ["number", "null"]}, diverged=YES_NO, key=KEY)),
        )
    ),
    runs=_list(
        _object(
            seed={"type": "integer"},
            key=KEY,
            steps=COUNT,
            tokens=COUNT,
            supervised_tokens=COUNT,
            trainable_parameters=COUNT,
            flops=AMOUNT,
            initial_validation_loss={"type": ["number", "null"]},
            final_validation_loss={"type": ["number", "null"]},
            learning_rate=NUMBER,
            warnings=_list(TEXT),
        )
    ),
    num_answers=COUNT,
    num_cut={**COUNT, "description": "Answers cut at the most tokens."},
    num_unscored=COUNT,
    stages=_list(KEY),
)
DETAIL = _object(
    contrast={**TEXT, "description": "Its name in `measure.contrasts`."},
    primary=YES_NO,
    left=TEXT,
    right=TEXT,
    sentence=TEXT,
    cost_ratio={**AMOUNT, "description": "FLOPs of tuning, search included, left / right."},
    pairs=_list(
        _object(where={**TEXT, "description": "The levels that both share."}, left=TEXT, right=TEXT, difference=ESTIMATE),
        "Each pair of arms alone, where there are several.",
    ),
    measured=_object(sentence=TEXT, cost_ratio={**AMOUNT, "description": "The same of seconds."}),
)
AXIS = _object(costs=_map(AMOUNT), front=_list(TEXT, "Cheapest first."))
NUMBERS = _list({"type": ["number", "null"]})
CURVE = _object(
    arm=TEXT,
    seed={"type": "integer"},
    key=KEY,
    num_steps=COUNT,
    train=_object("Thinned to 300 points.", step=NUMBERS, tokens=NUMBERS, loss=NUMBERS, lr=NUMBERS),
    validation=_object(step=NUMBERS, tokens=NUMBERS, loss=NUMBERS),
)
FIGURE = _object("In percent; auroc 0..1. Bounds: 95%, by bootstrap over passages.", value=NUMBER, low=NUMBER, high=NUMBER)
READING = _object(
    "A reader on the suite.",
    arm=TEXT,
    seed={"type": "integer"},
    key=KEY,
    always_empty={**AMOUNT, "description": "EM of a reader that never answers, in percent."},
    results=_list(_object(name={**TEXT, "description": "Of the threshold."}, threshold=NUMBER, figures=_map(FIGURE))),
)
FAIRNESS = _object(
    "Every field of every recipe, compared.",
    declared=_map(_list(TEXT), "Factor -> fields that it sets."),
    num_fields=COUNT,
    differences=_list(_object(path=TEXT, factor=_or_null(TEXT), values=_map(ANY))),
    undeclared=_list(TEXT, "Empty in a fair study."),
    same=_map(ANY),
    baselines=_map(_list(TEXT), "Baseline -> fields in which it differs from the first other arm."),
    inputs=_map(_map(TEXT), "model, suite, data -> arm -> content."),
)
WARNINGS = _list(_object(kind=TEXT, arms=_list(TEXT), text=TEXT))
PROVENANCE = _object(
    id={**TEXT, "description": "Anchor in the page."},
    kind=TEXT,
    label=TEXT,
    key=KEY,
    arms=_list(TEXT),
    built=YES_NO,
    figures={**TEXT, "description": "What of the report it gave."},
    command={**TEXT, "description": "Shows its recipe; the study file by name."},
    measured={
        "type": "object",
        "properties": {"command": TEXT, "seconds": NUMBER, "created": TEXT},
        "required": ["command"],
        "additionalProperties": False,
    },
)
GIVEN = _object(
    seeds=_list({"type": "integer"}, "Seeds that share this answer."),
    turns=_list(TEXT),
    finish={"enum": ["stop", "length"]},
    num_completion_tokens=COUNT,
    checked=YES_NO,
    score={"type": ["number", "null"], "minimum": 0, "maximum": 1},
    reason=TEXT,
    parts=_list({"type": "object"}),
)
ITEM = _object(
    id=TEXT,
    category=TEXT,
    language=TEXT,
    messages=_list(_map(TEXT)),
    reference=_or_null(TEXT),
    answers=_map(_list(GIVEN), "Arm -> its answers."),
)

PREDICTED = _object("Null where it was not predicted, or is not measured.", predicted=AMOUNT, actual=AMOUNT, ratio=AMOUNT)
RATIO = _object("Predicted / actual.", count=COUNT, median=AMOUNT, worst={**AMOUNT, "description": "The one furthest from 1."})
FORECAST = _or_null(
    _object(
        "What stages were predicted to take before they ran; null where none was predicted.",
        stages=_list(_object(key=KEY, label=TEXT, kind=TEXT, seconds=PREDICTED, memory_bytes=PREDICTED, disk_bytes=PREDICTED)),
        kinds=_map(_object(num_stages=COUNT, seconds=RATIO, memory_bytes=RATIO, disk_bytes=RATIO), "By kind of stage."),
    )
)

REPORT_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "campana.report/1",
    "title": "campana.report/1",
    **_object(
        "What a study says. Two runs of one study agree in everything that is not under a key named `measured`.",
        schema={"const": "campana.report/1"},
        study=_object(
            name=TEXT,
            question=TEXT,
            digest={**TEXT, "description": "Of the study file's bytes."},
            seeds=_list({"type": "integer"}),
            primary=_object(measure=TEXT, contrast=_list(TEXT)),
            factors=_map(_list(TEXT)),
            baselines=_list(TEXT),
            average={"enum": ["macro", "micro"]},
            confidence=NUMBER,
            margin=NUMBER,
            prices=_or_null(_object(machine_hour=NUMBER, currency=TEXT)),
            suite=_object(digest=TEXT, format=TEXT),
        ),
        answer=_object(
            sentence={**TEXT, "description": "The primary contrast, with FLOPs as cost."},
            details=_list(DETAIL, "All contrasts, the primary first."),
            measured=_object(sentence={**TEXT, "description": "The same, with the time that this run took as well."}),
        ),
        arms=_list(ARM),
        measure={"type": ["object", "null"], "description": "measure.json (campana.measure/1); null before it is built."},
        costs=COSTS,
        pareto=_object(
            "Score against cost of tuning, search included.",
            scores=_map({"type": ["number", "null"]}),
            flops=AXIS,
            supervised_tokens=AXIS,
            measured={"type": "object", "properties": {"seconds": AXIS, "money": AXIS}, "additionalProperties": False},
        ),
        reading=_list(READING, "Of a study of readers; else empty."),
        curves=_list(CURVE),
        data=_list(
            _object(
                key=KEY,
                label=TEXT,
                names=_map(TEXT, "Name in the report -> name in the study."),
                arms=_list(TEXT),
                report={"type": "object", "description": "data_report.json (campana.data_report/1)."},
            )
        ),
        fairness=FAIRNESS,
        provenance=_list(PROVENANCE),
        items=_list(ITEM),
        missing=_list(
            _object(
                kind=TEXT,
                label=TEXT,
                key=KEY,
                arms=_list(TEXT),
                measured=_object(num_failed=COUNT, last=_or_null(_object(outcome={"enum": ["failed", "killed"]}, error=TEXT))),
            ),
            "Stages that are not built.",
        ),
        warnings=WARNINGS,
        measured=_object(machines=_list(ANY), study_path=TEXT, warnings=WARNINGS, forecast=FORECAST),
    ),
}
