"""The held-out loss of what a system stored, by one plain piece of code for all: each row alone, transformers' own forward pass, fp32.

    python score.py MODEL_DIR ROWS.jsonl [SAVED_DIR]      prints {"loss": nats per supervised token, "tokens": ...}

SAVED_DIR holds whole weights, or PEFT's adapter for MODEL_DIR; without it the model itself is scored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from watch import read_rows


@torch.no_grad()
def score(model_dir: Path, rows_path: Path, saved_dir: Path | None) -> dict[str, float]:
    adapter = saved_dir is not None and (saved_dir / "adapter_config.json").exists()
    whole = model_dir if saved_dir is None or adapter else saved_dir
    model: Any = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, str(saved_dir))
    model.eval()
    total, count = 0.0, 0
    for row in read_rows(rows_path):
        logits = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1]
        targets = torch.tensor(row["labels"][1:])
        total += torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum").item()
        count += int((targets != -100).sum())
    return {"loss": total / count, "tokens": count}


if __name__ == "__main__":
    saved = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print("\n" + json.dumps(score(Path(sys.argv[1]), Path(sys.argv[2]), saved)))
