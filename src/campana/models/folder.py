"""A transformers folder from somewhere else: is it whole, is it safe, and copy of it what a model needs.

Weights are read from safetensors only. Pickled weights (`.bin`, `.pt`) can run code when read and are refused, and so is code that
comes with the model (`auto_map`). Nothing in a copied folder points outside it: links are followed, never kept.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from campana.errors import ModelError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SMALL_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; anything else is a ModelError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"the model folder has no {path.name}", where=str(path.parent), hint="give a folder that transformers wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} is not a JSON object", where=str(path))
    return value  # pyright: ignore[reportUnknownVariableType]  # json gives dict[Unknown, Unknown]; its keys are strings


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: one, or the shards of its index. Raises ModelError when some or all are missing."""
    if (index := folder / INDEX).is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        missing = [name for name in shards if not (folder / name).is_file() or "/" in name]
        if missing or not shards:
            raise ModelError(
                f"weights are missing: {', '.join(missing) or 'the index lists none'}", where=str(folder), hint="download the model again"
            )
        return [folder / name for name in shards]
    if (single := folder / WEIGHTS).is_file():
        return [single]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise ModelError(
            f"the weights are pickled ({pickled[0]}), and reading a pickle can run code",
            where=str(folder),
            hint="convert them to safetensors where you trust them: load with transformers' from_pretrained, then save_pretrained",
        )
    raise ModelError("the model folder has no model.safetensors", where=str(folder), hint="download the model again, weights included")


def is_whole(folder: Path) -> bool:
    """Whether the folder has a configuration, all its weights and a tokenizer."""
    try:
        weight_files(folder)
    except ModelError:
        return False
    tokenizer = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in tokenizer)


def refuse_unsafe(folder: Path) -> None:
    """Raise ModelError for an adapter alone, for code that comes with the model, and for quantised weights."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError("this is an adapter, not a model", where=str(folder), hint=f"give its base as the model: {base}")
    config = read_json(folder / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in read_json(folder / name):
            raise ModelError(
                f"{name} asks for code that comes with the model (auto_map), which is never run",
                where=str(folder / name),
                hint="use a model whose architecture transformers has; "
                f"if it has {config.get('model_type')!r}, remove auto_map in a copy of the folder",
            )
    if quantised := config.get("quantization_config"):
        kind = quantised.get("quant_method") if isinstance(quantised, dict) else quantised  # pyright: ignore[reportUnknownVariableType]  # JSON
        raise ModelError(
            f"the weights are quantised ({kind}), and only whole ones can be tuned",
            where=str(folder),
            hint="give the model it was made from",
        )


def copy_folder_files(folder: Path, out_dir: Path, *, link: bool) -> None:
    """Copy configuration, tokenizer and weights into `out_dir`.

    `link`: weights become hard links where both are on one file system. For caches only, whose files are never edited in place: what
    is linked changes with its source.
    """
    for name in _SMALL_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out_dir / name)
    weights = weight_files(folder)
    if (folder / INDEX).is_file():
        shutil.copyfile(folder / INDEX, out_dir / INDEX)
    for path in weights:
        _link_or_copy(path.resolve(), out_dir / path.name, link)


def _link_or_copy(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
        except OSError:
            pass  # another file system, or one without hard links: copy
        else:
            return
    shutil.copyfile(source, target)
