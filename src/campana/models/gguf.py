"""A `.gguf` file made into a transformers folder: weights dequantised to float32, the tokenizer rebuilt as it was.

transformers reads the file; what it leaves inexact is mended here, or refused:
- the splitting of text before merges (`tokenizer.ggml.pre`) is set for families that transformers does not know; an unknown one is
  an error, because a tokenizer that splits another way gives the model other tokens than it was trained on;
- rotary positions that the file scales and transformers would not are an error;
- the weights become plain tensors, and no trace of the quantisation is left in the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError
from campana.models.rotary import rotary_types

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DIGITS_ONE_BY_ONE = {"smollm", "starcoder", "refact", "command-r"}
"""Families that split digits one by one and the rest as GPT-2 does; names as llama.cpp writes them."""
_AS_GPT2 = {"gpt-2", "gpt2", "mpt", "olmo", "jais", "phi-2"}


def is_gguf(path: Path) -> bool:
    """Whether the file says it is GGUF (its first four bytes)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def read_header(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's own description (`general.*`, `<architecture>.*`, `tokenizer.*` without long lists), and the names of its tensors."""
    from transformers.integrations.gguf.reader import read_gguf_metadata

    try:
        return read_gguf_metadata(str(path))
    except Exception as error:  # struct, unicode, index and value errors: all mean a damaged or foreign file
        raise ModelError(f"not a GGUF file that can be read: {error}", where=str(path), hint="fetch it again") from error


def convert_gguf(path: Path, out_dir: Path) -> dict[str, Any]:
    """Write config.json, model.safetensors (float32), generation_config.json and the tokenizer's files; returns the file's metadata."""
    metadata, names = read_header(path)
    if metadata.get("split.count", 1) > 1:
        raise ModelError("the file is one part of several", where=str(path), hint="join them: llama-gguf-split --merge FIRST_PART OUT.gguf")
    with _read_once():
        tokenizer = _tokenizer(path, metadata)
        _save_tokenizer(tokenizer, out_dir)
        _save_weights(path, metadata, names, out_dir)
    return metadata


@contextmanager
def _read_once() -> Generator[None]:
    """Let transformers parse the file once, not three times, and make its table of names once, not once a module: 35 s become 9 s for 135M.

    It imports both from `gguf` where it uses them; for the length of the block they remember their results.
    """
    import gguf

    package: Any = gguf
    kept = package.GGUFReader, package.get_tensor_name_map
    package.GGUFReader, package.get_tensor_name_map = cache(kept[0]), cache(kept[1])
    try:
        yield
    finally:
        package.GGUFReader, package.get_tensor_name_map = kept


def _save_weights(path: Path, metadata: dict[str, Any], names: tuple[str, ...], out_dir: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        architecture = metadata.get("general.architecture")
        raise ModelError(
            f"cannot read the weights of architecture {architecture!r}: {error}",
            where=str(path),
            hint="give the model's safetensors folder",
        ) from error
    model, report = loaded
    lost = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lost:
        raise ModelError(
            f"{len(lost)} tensors have no place, such as {lost[0]}", where=str(path), hint="give the model's safetensors folder"
        )
    _refuse_lost_scaling(path, metadata, names, model.config)
    model.hf_quantizer = None
    model.is_quantized = False
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path", "unk_token_id"):
        vars(model.config).pop(name, None)
    model.save_pretrained(out_dir, max_shard_size="1TB")


def _refuse_lost_scaling(path: Path, metadata: dict[str, Any], names: tuple[str, ...], config: Any) -> None:
    """ModelError where the file stretches its rotary positions and the loaded model does not: each position would be another."""
    architecture = metadata.get("general.architecture")
    is_scaled = metadata.get(f"{architecture}.rope.scaling.type", "none") != "none" or any(
        name.startswith(("rope_freqs", "rope_factors")) for name in names
    )
    if is_scaled and rotary_types(config).keys() <= {"default"}:
        raise ModelError(
            f"the file scales its rotary positions, which is lost when architecture {architecture!r} is read",
            where=str(path),
            hint="give the model's safetensors folder",
        )


def _tokenizer(path: Path, metadata: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    except (ValueError, KeyError) as error:
        raise ModelError(f"cannot rebuild the tokenizer: {error}", where=str(path), hint="give the model's safetensors folder") from error
    for name in ("name_or_path", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    if metadata.get("tokenizer.ggml.model") == "gpt2":
        _set_split(tokenizer, metadata.get("tokenizer.ggml.pre"), path)
    length = next((value for key, value in metadata.items() if key.endswith(".context_length")), None)
    if isinstance(length, int):
        tokenizer.model_max_length = length
        tokenizer.init_kwargs["model_max_length"] = length
    return tokenizer


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, out_dir: Path) -> None:
    """Write it so that it is read back from tokenizer.json as it is: some model classes would build their own splitting anew."""
    tokenizer.save_pretrained(out_dir)
    path = out_dir / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "TokenizersBackend"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _set_split(tokenizer: PreTrainedTokenizerBase, family: str | None, path: Path) -> None:
    """Split text as the vocabulary's merges were learnt. transformers has set the families that it knows."""
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if family in GGUF_PRE_TOKENIZER_SPLITS or family in _AS_GPT2:
        return
    if family not in _DIGITS_ONE_BY_ONE:
        known = sorted({*GGUF_PRE_TOKENIZER_SPLITS, *_AS_GPT2, *_DIGITS_ONE_BY_ONE})
        raise ModelError(
            f"the tokenizer splits text in a way that is not known here ({family!r})",
            where=str(path),
            hint=f"give the model's safetensors folder, with its tokenizer.json; known: {', '.join(known)}",
        )
    backend = getattr(tokenizer, "backend_tokenizer")  # noqa: B009  # the base class does not declare it
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
