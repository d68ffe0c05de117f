"""What the probe reads of models and data, with the stages' own code: configurations, row lengths, prompts.

Each function runs in a child process (`forecast.children`) and returns JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campana.forecast.children import silent
from campana.forecast.packs import RowLengths


def bring(source: Any, local_path: Path | None, out_dir: Path, cache_dir: Path) -> dict[str, Any]:
    """Bring a model in; seconds and peak."""
    from campana.generation.meter import peak_memory_bytes
    from campana.models.bring import bring_in

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    bring_in(source, local_path, out_dir, silent, cache_dir)
    return {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}


def prepare_rows(spec: Any, model_dir: Path, data_paths: Mapping[str, Path], out_dir: Path) -> dict[str, Any]:
    """Prepare rows; their lengths, seconds and peak."""
    from campana.data.prepare import prepare
    from campana.generation.meter import peak_memory_bytes

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    prepare(
        model_dir=model_dir,
        data_paths=data_paths,
        portions=spec.portions,
        template_name=spec.template,
        max_length=spec.max_length,
        num_validation=spec.validation,
        subset_seed=spec.subset_seed,
        out_dir=out_dir,
        progress=silent,
    )
    took = {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}
    rows = {name: RowLengths.open(out_dir / f"{name}.arrow").as_json() for name in ("train", "validation")}
    return {**rows, **took}


def prompt_ids(spec: Any, model_dir: Path, suite_path: Path) -> dict[str, Any]:
    """{"turns"}: the token ids of every turn's prompt of every item, earlier answers left empty."""
    from campana.data.suites import choose_items, read_suite
    from campana.data.templates import load_template
    from campana.models.load import load_tokenizer

    template = load_template(spec.template, load_tokenizer(model_dir))
    turns: list[list[list[int]]] = []
    for item in choose_items(read_suite(suite_path, spec.suite_format), spec.max_items):
        ends = [place for place, message in enumerate(item.messages) if message["role"] == "user"]
        turns.append([template.prompt(_until(item.messages, end)) for end in ends])
    return {"turns": turns}


def _until(messages: Sequence[Mapping[str, str]], end: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for message in messages[: end + 1]:
        if message["role"] == "user" and found and found[-1]["role"] == "user":
            found.append({"role": "assistant", "content": ""})
        found.append(dict(message))
    return found
