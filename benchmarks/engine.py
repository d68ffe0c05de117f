"""How quick the engine is: `python benchmarks/engine.py` prints one JSON object.

`*_seconds` of plans and runs are whole processes, the start of Python included; the bounds are the issue's: the plan of a finished
200-stage study under 1 s, a 10,000-stage plan under 10 s, `run` of a finished study under 2 s, none of them with torch loaded.
`stages_*` is what the engine adds to a stage that needs torch and transformers, forked from the warm server and in interpreters of their
own: `until_ready` from the runner's start to `run` with its imports done (`first`: the server's own imports too), `until_stored` from the
end of `run` to the published object. `torch_gflops` is a matrix product in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from campana.core.graph import topological
from campana.core.keys import recipe
from campana.core.observer import Built, Event, Progressed, Started
from campana.core.runner import run
from campana.core.spec import Context, Meter, Resources, Source, Stage, StageSpec
from campana.core.store import Store
from campana.executors import Local

HERE = Path(__file__).parent
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "asyncio", "rich")


class Nothing(StageSpec):
    """Imports what a tuning stage does, and times a matrix product."""

    kind: Literal["bench_nothing"] = "bench_nothing"
    number: int
    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "peft")

    def run(self, context: Context) -> Meter:
        import peft
        import torch
        import transformers.modeling_utils

        context.progress(0, 1, "steps")
        left, right = torch.ones(1024, 1024), torch.ones(1024, 1024)
        left @ right
        start = time.perf_counter()
        for _ in range(20):
            left @ right
        seconds = (time.perf_counter() - start) / 20
        context.progress(1, 1, "steps")
        return {"gflops": 2 * 1024**3 / seconds / 1e9, "threads": torch.get_num_threads(), "of": [peft.__name__, transformers.__name__]}


def study(num_stages: int) -> list[Stage]:
    """A study of so many stages of the real kinds: arms of prepare, tune, generate and check, and one measure over all."""
    from campana.stages.check import CheckStage
    from campana.stages.generate import Generate
    from campana.stages.measure import ArmScores, Measure
    from campana.stages.model import Model
    from campana.stages.prepare import Prepare
    from campana.stages.tune import Tune

    data, suite = Source("sha256:" + "d" * 64, HERE), Source("sha256:" + "5" * 64, HERE)
    model = Stage(Model.model_validate({"source": {"kind": "hub", "repository": "a/b", "revision": "c" * 40}}), label="model")
    checks: list[Stage] = []
    for arm in range((num_stages - 2) // 4):
        spec = Prepare.model_validate({"portions": {"x": {"format": "alpaca", "count": 1000 + arm}}})
        prepare = Stage(spec, {"model": model, "data.x": data}, label=f"prepare {arm}")
        method = {"kind": "lora", "rank": 16}
        rate = {"kind": "fixed", "value": 1e-4}
        tune = Stage(Tune.model_validate({"method": method, "learning_rate": rate}), {"model": model, "data": prepare}, label=f"tune {arm}")
        inputs = {"model": model, "tuned": tune, "suite": suite}
        answers = Stage(Generate.model_validate({"engine": "transformers"}), inputs, label=f"generate {arm}")
        checks.append(Stage(CheckStage(), {"answers": answers, "suite": suite}, label=f"check {arm}"))
    arms = {str(index): ArmScores(levels={}, inputs=(f"{index}/0",)) for index in range(len(checks))}
    scores = {f"scores.{index}/0": stage for index, stage in enumerate(checks)}
    return [Stage(Measure(arms=arms, contrasts=()), scores, label="measure")]


def fill(root: str, num_stages: str) -> None:
    """Put a finished study into a store, without running it."""
    os.fsync = lambda _: None  # no power cut is expected here
    store = Store(Path(root))
    for stage in topological(study(int(num_stages))):
        lock = store.lock(stage.key)
        assert lock is not None
        with lock:
            out_dir, _ = store.begin(stage.key)
            (out_dir / "rows.jsonl").write_text("{}\n")
            store.publish(stage.key, recipe=recipe(stage), label=stage.label, execution={}, meter={}, seconds=1.0)


def plan(root: str, num_stages: str) -> None:
    """Plan, and say which heavy modules that loaded."""
    from campana.core.plan import make_plan

    planned = make_plan(study(int(num_stages)), Store(Path(root)))
    print(
        json.dumps(
            {"stages": len(planned.entries), "missing": len(planned.missing), "loaded": [name for name in HEAVY if name in sys.modules]}
        )
    )


def rerun(root: str, num_stages: str) -> None:
    """`run` of a study."""
    with Local() as executor:
        result = run(study(int(num_stages)), Store(Path(root)), executor)
    print(json.dumps({"stages": len(result.reused), "loaded": [name for name in HEAVY if name in sys.modules]}))


def process(command: Callable[[str, str], None], root: Path, num_stages: int) -> dict[str, object]:
    """One command in a process of its own: its answer, and the seconds of the whole process, the best of three."""
    best: dict[str, object] = {}
    for _ in range(3):
        start, before = time.perf_counter(), os.times()
        argv = [sys.executable, __file__, command.__name__, str(root), str(num_stages)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        seconds = round(time.perf_counter() - start, 3)
        if not best or seconds < float(str(best["seconds"])):
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            best = {"seconds": seconds, "cpu_seconds": round(cpu, 3), **(json.loads(done.stdout) if done.stdout else {})}
        if command is fill:
            break
    return best


def stages_in_processes(root: Path, *, prefork: bool, count: int) -> dict[str, object]:
    """What a stage costs from `start` to its object in the store, and until its `run` has the imports."""
    store = Store(root)
    times: dict[str, list[float]] = {}

    def hear(event: Event) -> None:
        if isinstance(event, (Started, Progressed, Built)):
            times.setdefault(event.stage.label, []).append(time.perf_counter())

    stages = [Stage(Nothing(number=number), resources=Resources(cores=2), label=str(number)) for number in range(count)]
    with Local(prefork=prefork) as executor:
        result = run(stages, store, executor, hear, Resources(cores=2, memory_bytes=8 << 30))
    assert result.is_complete, result
    spans = [(marks[1] - marks[0], marks[-1] - marks[2]) for marks in times.values()]
    meter = store.manifest(stages[-1].key).meter
    return {
        "first_until_ready_seconds": round(spans[0][0], 3),
        "until_ready_seconds": round(min(span[0] for span in spans[1:]), 3),
        "until_stored_seconds": round(min(span[1] for span in spans[1:]), 3),
        "torch_gflops": round(float(meter["gflops"]), 1),
        "torch_threads": meter["threads"],
    }


def main() -> None:
    """Measure all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = folder / "site" / "bench-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[campana.stage]\nbench_nothing = engine:Nothing\n")
        figures = {
            "fill_200": process(fill, folder / "two", 200),
            "plan_200_finished": process(plan, folder / "two", 200),
            "run_200_finished": process(rerun, folder / "two", 200),
            "plan_10000_missing": process(plan, folder / "none", 10_000),
            "plan_10000_after_200": process(plan, folder / "two", 10_000),
        }
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), str(HERE)])
        sys.path.insert(0, str(folder / "site"))
        figures["stages_forked"] = stages_in_processes(folder / "forked", prefork=True, count=5)
        figures["stages_fresh"] = stages_in_processes(folder / "fresh", prefork=False, count=3)
        figures["load_average"] = {"one_minute": round(os.getloadavg()[0], 1)}
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"fill": fill, "plan": plan, "rerun": rerun}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
