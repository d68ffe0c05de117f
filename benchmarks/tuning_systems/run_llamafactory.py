"""LLaMA-Factory on one work. Called by `benchmarks/tuning.py` with a task as JSON; prints one JSON object as its last line.

Settings that `task["options"]` names are given as in its YAML files; all others are its defaults, but for those that make the work the
same. Its rows are token ids: the dataset file holds row numbers, and what its processors would tokenize is looked up. Packing, collating
and training are its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.tuner import run_exp
from watch import Watch, prove, put_watch, read_rows


class Proved(Exception):  # noqa: N818 (a way out of a library's call, not an error)
    """Carries the proof out of LLaMA-Factory's workflow."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__()
        self.found = found


def main(task: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(task["threads"])
    rows = read_rows(Path(task["data_dir"]) / "train.jsonl")
    out_dir = Path(task["out_dir"])
    (out_dir / "data").mkdir(parents=True)
    (out_dir / "data" / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    numbers = [{"instruction": str(index), "input": "", "output": "row"} for index in range(len(rows))]
    (out_dir / "data" / "rows.json").write_text(json.dumps(numbers))

    def looked_up(_self: Any, prompt: list[dict[str, str]], **_rest: Any) -> tuple[list[int], list[int]]:
        row = rows[int(prompt[0]["content"])]
        return list(row["input_ids"]), list(row["labels"])

    SupervisedDatasetProcessor._encode_data_example = looked_up
    watch = Watch()
    put_watch(CustomSeq2SeqTrainer, watch)
    result: dict[str, Any] = {}
    train = CustomSeq2SeqTrainer.train

    def trained(self: Any, *rest: Any, **named: Any) -> Any:
        if task["prove"]:
            raise Proved(prove(self))
        answer = train(self, *rest, **named)
        result.update(watch.result())
        result["trainable_parameters"] = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return answer

    CustomSeq2SeqTrainer.train = trained
    if not task["save"]:
        CustomSeq2SeqTrainer.save_model = lambda *_rest, **_named: None
    arguments = {
        "model_name_or_path": task["model_dir"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": task["method"],
        "dataset": "rows",
        "dataset_dir": str(out_dir / "data"),
        "template": "empty",
        "output_dir": str(out_dir / "model"),
        "overwrite_cache": True,
        "disable_shuffling": True,
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "num_train_epochs": 1,
        "bf16": task["precision"] == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": task["seed"],
        **task["options"],
    }
    if task["method"] == "lora":
        arguments |= {"lora_rank": task["rank"], "lora_alpha": task["alpha"], "lora_dropout": 0.0, "lora_target": "all"}
    try:
        run_exp(arguments)
    except Proved as proved:
        return proved.found
    return result


if __name__ == "__main__":
    found = main(json.loads(sys.argv[1]))
    print("\n" + json.dumps(found))
