"""TRL on one work. Called by `benchmarks/tuning.py` with a task as JSON; prints one JSON object as its last line.

Settings that `task["options"]` names are given to SFTConfig; all others are TRL's defaults, but for those that make the work the same:
learning rate, schedule, order, precision, and nothing stored or reported on the way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from watch import Watch, prove, put_watch, read_rows


def main(task: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(task["threads"])
    watch = Watch()
    put_watch(SFTTrainer, watch)
    out_dir = Path(task["out_dir"])
    arguments = SFTConfig(
        output_dir=str(out_dir / "scratch"),
        learning_rate=task["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        num_train_epochs=1,
        bf16=task["precision"] == "bf16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy=task["options"].pop("train_sampling_strategy", "sequential"),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=task["seed"],
        **task["options"],
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=task["rank"], lora_alpha=task["alpha"], lora_dropout=0.0, target_modules="all-linear")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(task["model_dir"], dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(read_rows(Path(task["data_dir"]) / "train.jsonl")),
        processing_class=AutoTokenizer.from_pretrained(task["model_dir"]),
        peft_config=lora if task["method"] == "lora" else None,
    )
    if task["prove"]:
        return prove(trainer)
    trainer.train()
    result = watch.result()
    result["trainable_parameters"] = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    if task["save"]:
        trainer.save_model(str(out_dir / "model"))
    return result


if __name__ == "__main__":
    found = main(json.loads(sys.argv[1]))
    print("\n" + json.dumps(found))
