"""CTranslate2 as a rival of the `packed` engine: installed on its own, fed with the same weights.

    from generation_ctranslate2 import Rival
    rival = Rival(model_dir, cache_dir, "float32", threads=2)
    rival.answers(requests, max_new, stop_ids)       # request id -> token ids

Types are CTranslate2's: "float32", "bfloat16" (where it has such kernels for the processor), "int8" (weights rounded to 8 bits).
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campana.generation.engine import Request
from campana.models.load import load_tokenizer

PIN = "ctranslate2==4.8.5"
ROWS = 32
"""Prompts of a batch."""


class Rival:
    """A model in CTranslate2's form. ValueError where this processor has no kernels of the type."""

    def __init__(self, model_dir: Path, cache_dir: Path, kind: str, threads: int) -> None:
        module = _module(cache_dir)
        self.tokenizer: Any = load_tokenizer(model_dir)
        with tempfile.TemporaryDirectory() as folder:
            converter: Any = importlib.import_module("ctranslate2.converters").TransformersConverter(str(model_dir))
            converter.convert(folder, quantization=kind, force=True)
            self.generator: Any = module.Generator(folder, device="cpu", compute_type=kind, intra_threads=threads, inter_threads=1)

    def answers(self, requests: Sequence[Request], max_new: int, stop_ids: frozenset[int]) -> dict[str, tuple[int, ...]]:
        """Greedy answers without their end tokens, in batches of like length."""
        names = self.tokenizer.convert_ids_to_tokens
        ordered = sorted(requests, key=lambda request: len(request.prompt_ids))
        results = self.generator.generate_batch(
            [names(list(request.prompt_ids)) for request in ordered],
            max_batch_size=ROWS,
            max_length=max_new,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=sorted(stop_ids),
        )
        return {request.id: tuple(result.sequences_ids[0]) for request, result in zip(ordered, results, strict=True)}


def _module(cache_dir: Path) -> Any:
    folder = cache_dir / "benchmarks" / PIN.replace("==", "-")
    if not (folder / "ctranslate2").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PIN]
        subprocess.run(command, check=True, stdout=sys.stderr)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module("ctranslate2")
