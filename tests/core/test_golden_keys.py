"""Golden keys: a known small study of the real kinds. Where one moves, every store in the world builds that stage again.

If you meant it (a field was renamed, a `version` raised), pin the new key and say so in the change. If a new field moved it, mark that
field `ADDED`. Recipes that are pinned in `test_keys.py` are the engine's own; these are the kinds'.
"""

from __future__ import annotations

from pathlib import Path

from campana.core.spec import Source, Stage
from campana.stages.check import CheckStage
from campana.stages.generate import Generate
from campana.stages.measure import ArmScores, Contrast, Measure
from campana.stages.model import Model
from campana.stages.prepare import Prepare
from campana.stages.select import Select
from campana.stages.tune import Tune

GOLDEN = {
    "model": "6d0f8beaa0337c52",
    "prepare": "ae6fb83497ac6001",
    "trial": "0992aae2bc8fbb6f",
    "select": "53336bedd057527e",
    "full": "ca617343a1333def",
    "lora": "2a5099e1c4898adb",
    "greedy": "b54cbdd9639b4ec0",
    "sampled": "03c0baed4dd20879",
    "check": "21f66e4991d37f00",
    "measure": "21adc8005f7f6e5d",
}


def study() -> dict[str, Stage]:
    nowhere = Path("nowhere")
    data, suite = Source("sha256:" + "d" * 64, nowhere), Source("sha256:" + "5" * 64, nowhere)
    source = {"kind": "pypi", "package": "a", "release": "1.0", "member": "a.gguf"}
    model = Stage(Model.model_validate({"source": source}))
    portions = {"0": {"format": "alpaca", "count": 1000}}
    prepare = Stage(Prepare.model_validate({"portions": portions}), {"model": model, "data.0": data})
    inputs = {"model": model, "data": prepare}
    trial_spec = {"method": "full", "learning_rate": {"kind": "fixed", "value": 1e-5}, "budget": 0.25, "export": False}
    trial = Stage(Tune.model_validate(trial_spec), inputs)
    select = Stage(Select(candidates=(1e-5,)), {"trial.0": trial})
    full = Stage(Tune.model_validate({"method": "full", "learning_rate": {"kind": "selected"}}), {**inputs, "select": select})
    lora_spec = {"method": {"kind": "lora", "rank": 8}, "learning_rate": {"kind": "fixed", "value": 1e-4}, "seed": 1}
    lora = Stage(Tune.model_validate(lora_spec), inputs)
    greedy = Stage(Generate.model_validate({"engine": "packed"}), {"model": model, "tuned": lora, "suite": suite})
    sample = {"kind": "sample", "seed": 1, "temperature": 0.7, "top_p": 0.9}
    sampled = Stage(Generate.model_validate({"engine": "transformers", "sampling": sample}), {"model": model, "suite": suite})
    checks = [Stage(CheckStage.model_validate({"default": "chrf"}), {"answers": each, "suite": suite}) for each in (greedy, sampled)]
    arms = {name: ArmScores(levels={"method": name}, inputs=(f"{name}/0",)) for name in ("lora", "none")}
    contrast = Contrast(name="lora - none", left=("lora",), right=("none",), primary=True)
    measure = Stage(Measure(arms=arms, contrasts=(contrast,)), {"scores.lora/0": checks[0], "scores.none/0": checks[1]})
    named = {"model": model, "prepare": prepare, "trial": trial, "select": select, "full": full, "lora": lora}
    return {**named, "greedy": greedy, "sampled": sampled, "check": checks[0], "measure": measure}


def test_golden_keys() -> None:
    assert {name: stage.key[:16] for name, stage in study().items()} == GOLDEN
