"""Bring a base model in, once, in the one form that every later stage reads.

    bring_in(source, local_path=None, out_dir=out_dir, progress=progress)

`out_dir` then holds config.json, model.safetensors (or its shards and their index), tokenizer.json, tokenizer_config.json, the chat
template where there is one, generation_config.json, and `model.json` (campana.model/1), which says what this model is:

    {"schema": "campana.model/1", "source": {...}, "sha256": "...", "architecture": "LlamaForCausalLM", "num_parameters": 134515008,
     "shape": {...} | null, "vocab_size": 49152, "context_length": 8192, "eos_ids": [2], "pad_id": 2, "turn_end_id": 2,
     "chat_template": true, "lossy": [], "dtype": "float32", "weight_bytes": ..., "licence": "apache-2.0"}

Pickled weights, code that comes with a model, and weights that do not fit their configuration are refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from campana.errors import ModelError
from campana.models.cache import default_cache_dir, sha256_of
from campana.models.folder import copy_folder_files, read_json, refuse_unsafe, weight_files
from campana.models.gguf import convert_gguf, is_gguf
from campana.models.prove import TokenizerFacts, prove_model, prove_tokenizer
from campana.models.quiet import quiet
from campana.models.shape import Shape, num_parameters
from campana.models.source import ModelSource

SCHEMA = "campana.model/1"
_TYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total` in `unit`s, and what is being done."""
        ...


def bring_in(
    source: ModelSource, local_path: Path | None, out_dir: Path, progress: Progress, cache_dir: Path | None = None
) -> Mapping[str, Any]:
    """Fetch, convert, prove and describe a model; returns what was measured: parameters and bytes.

    `cache_dir`: where downloads are kept (None: the platform's default). ModelError says what is wrong with the model and what to do.
    """
    progress(0, 4, "step", doing="fetch")
    content = source.fetch(default_cache_dir() if cache_dir is None else cache_dir, local_path)
    digest = sha256_of(content)
    progress(1, 4, "step", doing="convert")
    path = _only_gguf(content)
    with quiet():
        if path is not None:
            metadata = convert_gguf(path, out_dir)
            licence = metadata.get("general.license")
        else:
            refuse_unsafe(content)
            # A person's folder may be edited in place later, so it is copied; a cache is not.
            copy_folder_files(content, out_dir, link=local_path is None)
            _complete_tokenizer(content, out_dir)
            licence = _declared_licence(content)
        progress(2, 4, "step", doing="check the tokenizer")
        config = read_json(out_dir / "config.json")
        facts = _tokenizer_facts(out_dir, config, rebuilt=path is not None)
    counted, dtype = stored_parameters(out_dir, config)
    progress(3, 4, "step", doing="check the weights")
    prove_model(out_dir, num_parameters=counted)
    eos_ids = _write_end_tokens(out_dir, config, facts)
    weight_bytes = sum(file.stat().st_size for file in weight_files(out_dir))
    shape = _shape(config, counted)
    about = {
        "schema": SCHEMA,
        "source": source.identity(),
        "sha256": digest,
        "architecture": (config.get("architectures") or [None])[0],
        "num_parameters": counted,
        "shape": None if shape is None else dataclasses.asdict(shape),
        "vocab_size": config.get("vocab_size"),
        "context_length": config.get("max_position_embeddings"),
        "eos_ids": eos_ids,
        "pad_id": facts.pad_id,
        "turn_end_id": facts.turn_end_id,
        "chat_template": facts.chat_template,
        "lossy": list(facts.lossy),
        "dtype": dtype,
        "weight_bytes": weight_bytes,
        "licence": licence,
    }
    (out_dir / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    progress(4, 4, "step", doing="done")
    return {"num_parameters": counted, "weight_bytes": weight_bytes}


def _only_gguf(content: Path) -> Path | None:
    """The `.gguf` file that `content` is or holds; None for a transformers folder. Several, or neither: an error."""
    if content.is_file():
        if is_gguf(content):
            return content
        raise ModelError("not a GGUF file", where=content.name, hint="give a .gguf file, or the folder that holds config.json")
    if (content / "config.json").is_file() or (content / "adapter_config.json").is_file():
        return None
    found = sorted(path for path in content.glob("*.gguf"))
    if len(found) != 1:
        what = f"{len(found)} .gguf files" if found else "neither config.json nor a .gguf file"
        raise ModelError(f"the folder holds {what}", where=str(content), hint="give the path of one .gguf file, or a transformers folder")
    return found[0]


def _complete_tokenizer(content: Path, out_dir: Path) -> None:
    """Make tokenizer.json where the folder has only an older form; it is left as it is where there is one."""
    from transformers import AutoTokenizer

    if (out_dir / "tokenizer.json").is_file():
        return
    try:
        AutoTokenizer.from_pretrained(str(content), local_files_only=True).save_pretrained(out_dir)
    except Exception as error:
        raise ModelError(
            f"the tokenizer cannot be read: {error}", where=str(content), hint="add the model's tokenizer.json to the folder"
        ) from error
    if not (out_dir / "tokenizer.json").is_file():
        raise ModelError("the model has no tokenizer.json, and none can be made", where=str(content), hint="add it to the folder")


def _tokenizer_facts(out_dir: Path, config: Mapping[str, Any], *, rebuilt: bool) -> TokenizerFacts:
    from campana.models.load import load_tokenizer

    tokenizer = load_tokenizer(out_dir)
    return prove_tokenizer(tokenizer, int(config["vocab_size"]) if "vocab_size" in config else len(tokenizer), lossless=rebuilt)


def _write_end_tokens(out_dir: Path, config: Mapping[str, Any], facts: TokenizerFacts) -> list[int]:
    """All ids that end an answer, written into generation_config.json: a model that lacks one of them would not stop."""
    path = out_dir / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ids: list[int] = []
    for value in (generation.get("eos_token_id"), config.get("eos_token_id"), facts.eos_id, facts.turn_end_id):
        for index in [value] if isinstance(value, int) else value or []:
            if index not in ids:
                ids.append(index)
    generation.pop("_from_model_config", None)
    if ids:
        generation["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    path.write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return ids


def stored_parameters(model_dir: Path, config: Mapping[str, Any]) -> tuple[int, str]:
    """(elements of all stored tensors, the type of most of them), read from the safetensors headers.

    A tied output layer that was stored twice counts once.
    """
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    types: Counter[str] = Counter()
    for path in weight_files(model_dir):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118  # not a dict: it has keys() and cannot be iterated
                    tensor = file.get_slice(name)
                    sizes[name] = math.prod(tensor.get_shape())
                    types[tensor.get_dtype()] += sizes[name]
        except Exception as error:
            raise ModelError(f"{path.name} is damaged: {error}", where=str(path), hint="download the model again") from error
    if config.get("tie_word_embeddings") and any(name.endswith("embed_tokens.weight") for name in sizes):
        sizes.pop("lm_head.weight", None)
    most = types.most_common(1)[0][0]
    return sum(sizes.values()), _TYPE_NAMES.get(most, most)


def _shape(config: Mapping[str, Any], counted: int) -> Shape | None:
    """The decoder's shape; marked inexact where it does not explain the number of parameters; None for other kinds of models."""
    if not any("CausalLM" in name for name in config.get("architectures") or []):
        return None
    try:
        shape = Shape.from_config(config)
    except ModelError:
        return None
    return dataclasses.replace(shape, exact=num_parameters(shape) == counted)


def _declared_licence(folder: Path) -> str | None:
    """The licence in a model card's front matter."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", front.group(1), re.MULTILINE) if front else None
    return found.group(1) if found else None
