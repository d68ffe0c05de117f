"""A made study of two methods and two sizes beside an untuned arm, and a real store filled with made stages.

Figures are drawn from one seeded generator, so the page can be looked at; they are of no other worth.
"""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from campana.core.keys import recipe
from campana.core.spec import Context, Resources, Stage
from campana.core.store import Store
from campana.outcome import gather
from campana.records import Answer, Row, Score, write_jsonl
from campana.study import Study, StudyFile, build_study

CATEGORIES = [
    "generation",
    "open qa",
    "closed qa",
    "classification",
    "extraction",
    "rewriting",
    "summarisation",
    "translation",
    "brainstorming",
    "maths",
    "code",
    "chain of thought",
]
SKILL = {"untuned": 0.28, "full-s": 0.47, "full-l": 0.58, "lora-s": 0.45, "lora-l": 0.57}
NASTY = "<script>alert('x')</script> </script><img src=x onerror=alert(1)> & \"quoted\""


def put(store: Store, stage: Stage, files: dict[str, object], took: float, /, **meter: object) -> None:
    """Publish a stage as if it had run, once."""
    if store.has(stage.key):
        return
    lock = store.lock(stage.key)
    assert lock is not None
    with lock:
        out_dir, _ = store.begin(stage.key)
        for name, content in files.items():
            write(out_dir / name, content)
        store.publish(stage.key, recipe=recipe(stage), label=stage.label, execution={}, meter=meter, seconds=took)


def fail(store: Store, stage: Stage, seconds: float, error: str) -> None:
    """One failed try."""
    lock = store.lock(stage.key)
    assert lock is not None
    with lock:
        store.begin(stage.key)
        store.fail(stage.key, seconds, error)


def write(path: Path, content: object) -> None:
    if path.suffix == ".jsonl" and isinstance(content, list) and isinstance(content[0], Row):
        write_jsonl(path, content)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))


def write_inputs(folder: Path, per_category: int) -> None:
    rows = [{"instruction": f"Say {n}", "input": "", "output": str(n)} for n in range(50)]
    (folder / "train.json").write_text(json.dumps(rows))
    items = []
    for category in CATEGORIES:
        for n in range(per_category):
            prompt = f"{category.capitalize()} task {n}: what is {n} + {n}? " + "Please answer in one short sentence. " * (n % 3)
            if n == 0:
                prompt += NASTY
            checks = [{"kind": "number", "value": 2 * n}]
            items.append(
                {
                    "id": f"{category.replace(' ', '-')}-{n}",
                    "category": category,
                    "prompt": prompt,
                    "reference": str(2 * n),
                    "checks": checks,
                }
            )
    (folder / "suite.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def make_study(folder: Path, per_category: int = 4, seeds: tuple[int, ...] = (0, 1), more_ranks: int = 0) -> Study:
    """The study; `more_ranks` adds LoRA levels, for a page with many arms."""
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder, per_category)
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "config.json").write_text("{}")
    methods = {
        "full": {"tune.method": {"kind": "full"}, "tune.lr": {"search": [1e-5, 3e-5, 1e-4]}},
        "lora": {"tune.method": {"kind": "lora", "rank": 16}, "tune.lr": {"search": [1e-4, 3e-4, 1e-3]}},
    }
    for n in range(more_ranks):
        methods[f"lora-r{2 ** (n + 1)}"] = {
            "tune.method": {"kind": "lora", "rank": 2 ** (n + 1)},
            "tune.lr": {"search": [1e-4, 3e-4, 1e-3]},
        }
    file = StudyFile.model_validate(
        {
            "question": "Does LoRA reach full tuning's quality on our tasks, and what does it save?",
            "primary": {"contrast": ["method=lora", "method=full"]},
            "seeds": list(seeds),
            "models": {"base": str(folder / "weights")},
            "data": {"train": {"path": str(folder / "train.json"), "format": "alpaca"}},
            "suites": {"use_cases": {"path": str(folder / "suite.jsonl")}},
            "base": {
                "model": "base",
                "template": "chatml",
                "tune": {"data": {"train": 20}, "epochs": 3, "batch_tokens": 512},
                "generate": {"suite": "use_cases", "max_new_tokens": 32},
            },
            "factors": {
                "method": methods,
                "size": {"s": {"tune.data": {"train": 10}}, "l": {"tune.data": {"train": 40}}},
            },
            "baselines": {"untuned": {"tune": None}},
            "prices": {"machine_hour": 0.1, "currency": "EUR"},
        }
    )
    return build_study(file, name="quickstart", base_dir=folder)


def skill_of(arm) -> float:
    return SKILL.get("-".join(arm.levels.values()) or "untuned", 0.5)


def fill_store(study: Study, root: Path, *, until: str = "measure", clock: float = 1.0) -> Store:
    """Build every stage up to a kind. `clock` scales whatever a machine would measure."""
    store = Store(root)
    order = ["model", "prepare", "select", "tune", "generate", "check", "measure"]
    wanted = order[: order.index(until) + 1]
    if "tune" in wanted and not store.has(study.arms[0].stages.tune[study.file.seeds[0]].key):
        fail(store, study.arms[0].stages.tune[study.file.seeds[0]], 11.0 * clock, f"out of memory {NASTY}")
    for arm in study.arms:
        dice = random.Random(arm.name)
        full = arm.levels.get("method") == "full"
        size = 40 if arm.levels.get("size") == "l" else 10
        stages = arm.stages
        put(store, stages.model, {"config.json": {}}, 3.2 * clock, num_parameters=134_515_008)
        if stages.prepare and "prepare" in wanted:
            put_prepare(store, stages.prepare, size, clock)
        flops = size * (7_500_000_000_000 if full else 5_200_000_000_000)
        seconds = size * (3.1 if full else 1.9) * clock
        for n, trial in enumerate(stages.trials if "select" in wanted else ()):
            put_tune(store, trial, dice, 8, flops // 4, seconds / 4, full, [2.9, 2.7, 2.5][n] + dice.random() / 5, clock)
        if stages.select and "select" in wanted:
            put_select(store, stages.select, clock)
        for stage in stages.tune.values() if "tune" in wanted else ():
            put_tune(
                store, stage, dice, 24 if size == 10 else 60, flops, seconds * (1 + dice.random() / 10), full, 2.4 - skill_of(arm), clock
            )
        if "generate" in wanted:
            put_answers(store, arm, clock, checked="check" in wanted)
    if "measure" in wanted:
        put_measure(store, study.measure, root.parent / "measured", clock)
    return store


def put_prepare(store: Store, stage: Stage, size: int, clock: float) -> None:
    lengths = {"min": 12, "median": 60, "p95": 180, "max": 240, "mean": 70.5, "histogram": {"edges": [0, 16, 512], "counts": [1, size - 1]}}
    data = {
        "0": {
            "format": {"kind": "alpaca"},
            "read": 50,
            "kept": 48,
            "used": size,
            "validation": 4,
            "encoded": 48,
            "shortened": 0,
            "dropped": {"empty answer": {"count": 2, "example": {"where": "0:7", "detail": "", "excerpt": NASTY}}},
            "tokens": {"total": 1000 * size, "supervised": 400 * size},
            "lengths": lengths,
            "language": "en",
        }
    }
    report = {
        "schema": "campana.data_report/1",
        "template": {},
        "max_length": 1024,
        "subset_seed": 0,
        "data_sets": data,
        "totals": {},
        "proofs": {},
    }
    put(store, stage, {"data_report.json": report}, 1.1 * clock, rows_read=50, train_tokens=1000 * size)


def put_select(store: Store, stage: Stage, clock: float) -> None:
    edge = "the highest learning rate tried was the best: higher ones may be better"
    chosen = {
        "schema": "campana.selected/1",
        "chosen": stage.spec.candidates[-1],
        "losses": [],
        "diverged": [],
        "at_edge": edge,
        "not_better": None,
    }
    put(store, stage, {"selected.json": chosen}, 0.01 * clock, trials=3)


def put_tune(store, stage, dice, steps, flops, seconds, full, end, clock) -> None:
    rows: list[dict] = [{"step": 0, "validation_loss": end + 1.2, "validation_tokens": 900}]
    for step in range(1, steps + 1):
        loss = end + 1.2 * math.exp(-3 * step / steps) + dice.gauss(0, 0.05)
        rows.append({"step": step, "tokens": 512, "supervised": 200, "loss": loss, "lr": 1e-4, "grad_norm": 1.0})
        if step % max(1, steps // 4) == 0:
            rows.append({"step": step, "validation_loss": end + 0.1 + 1.1 * math.exp(-3 * step / steps), "validation_tokens": 900})
    counted = {"tokens": 512 * steps, "supervised_tokens": 200 * steps, "flops": flops}
    summary = {
        "schema": "campana.tune/1",
        "steps": steps,
        **counted,
        "trainable_parameters": 134_515_008 if full else 4_884_480,
        "initial_validation_loss": end + 1.2,
        "final_validation_loss": [row["validation_loss"] for row in rows if "validation_loss" in row][-1],
        "learning_rate": 1e-4,
        "diverged": None,
        "warnings": [],
    }
    measured = {"peak_memory_bytes": int((2.9e9 if full else 1.3e9) * clock), "seconds": {"train": seconds * 0.95}}
    put(store, stage, {"metrics.jsonl": rows, "tune.json": summary}, seconds, **counted, **measured)


def put_answers(store: Store, arm, clock: float, checked: bool) -> None:
    suite = [json.loads(line) for line in next(iter(arm.stages.generate.values())).inputs["suite"].path.read_text().splitlines()]
    for seed, generate in arm.stages.generate.items():
        dice = random.Random(f"{arm.name} {seed}")
        answers, scores = [], []
        for n, item in enumerate(suite):
            hard = 0.25 * math.sin(CATEGORIES.index(item["category"]))
            value: float | None = 1.0 if dice.random() < skill_of(arm) + hard else 0.0
            text = NASTY if n == 0 else f"The answer is {item['reference']}." if value else "I am not sure. " * (1 + n % 5)
            cut = dice.random() < (0.2 if arm.baseline else 0.02)
            reason = "the number matches" if value else f"expected {item['reference']}, found no number"
            if n == 3:
                value, reason = None, "no reference"
            answers.append(Answer(item["id"], (text,), "length" if cut else "stop", 30, 12))
            scores.append(Score(item["id"], item["category"], value, reason, ({"check": "number", "value": value, "reason": reason},)))
        tokens = sum(answer.num_completion_tokens for answer in answers)
        put(store, generate, {"answers.jsonl": answers}, 0.1 * len(suite) * clock, tokens=tokens, flops=3_000_000_000 * tokens)
        if checked:
            put(store, arm.stages.check[seed], {"scores.jsonl": scores}, 0.05 * clock)


def put_measure(store: Store, stage: Stage, out_dir: Path, clock: float) -> None:
    """The real statistics, on the made scores."""
    out_dir.mkdir(parents=True, exist_ok=True)
    inputs = {name: store.path(value.key) for name, value in stage.inputs.items()}
    stage.spec.run(Context(inputs, out_dir, out_dir, Resources(), lambda *_, **__: None))
    put(store, stage, {"measure.json": json.loads((out_dir / "measure.json").read_text())}, 0.4 * clock)


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Made stages need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, to be read only."""
    return make_study(tmp_path_factory.mktemp("study"), per_category=2)


@pytest.fixture(scope="session")
def store(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The whole store, to be read only."""
    return fill_store(study, tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture
def report(study: Study, store: Store) -> dict:
    """A report of one's own."""
    return gather(study, store)


@pytest.fixture
def make():
    """`make_study`, for tests that need another study."""
    return make_study


@pytest.fixture
def fill():
    """`fill_store`, for tests that need another store."""
    return fill_store
