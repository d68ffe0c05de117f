"""A folder -> a transformers model with a span head: an encoder, or a decoder where none knows the language.

    model, tokenizer, fresh = load_span_model(folder)      # fresh: the head is new, and has learnt nothing

A decoder stays as it is: a token sees what stands before it, the question first, and what stands for "no answer" comes last (`layout`).
To show it the whole row (`is_causal: false`) costs more than it brings: it has to learn anew what it knew (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError
from campana.models.folder import refuse_unsafe, weight_files
from campana.models.load import load_tokenizer
from campana.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD = "qa_outputs"
_WANTED = "give an encoder such as BERT, or a language model such as LLaMA"


def load_span_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, bool]:
    """(model with a span head, tokenizer, whether the head is new), float32. A new head is random: seed torch before.

    Raises ModelError for architectures without a plain two-output head, missing weights, pickles and foreign code.
    """
    import torch
    from transformers import AutoConfig

    refuse_unsafe(folder)
    weight_files(folder)
    with quiet():
        try:
            config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        except ValueError as error:
            raise ModelError(str(error).splitlines()[0][:200], where=str(folder / "config.json"), hint=_WANTED) from error
        config.num_labels = 2
        if is_decoder(config):
            config.use_cache = False
        kind = _span_class(config, folder)
        loaded: Any = kind.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            key_mapping=_other_names(config, kind),
        )
    model, report = loaded
    if not hasattr(model, HEAD):
        raise ModelError(f"{type(model).__name__} has another kind of head", where=str(folder), hint=_WANTED)
    missing = sorted(report["missing_keys"])
    fresh = [name for name in missing if name.startswith(HEAD + ".")]
    absent = [name for name in missing if name not in fresh] + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise ModelError(f"the model has no fitting weights for {absent[0]}", where=str(folder), hint="fetch the model again")
    tokenizer = load_tokenizer(folder)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()  # some files ask for it, and would pass it on to whoever loads what is saved here
        backend.no_padding()
    return model.eval(), tokenizer, bool(fresh)


def is_decoder(config: Any) -> bool:
    """Whether models of this kind are made to write, not to fill gaps: their tokens see only what stands before them.

    Not those that read one text and write another, nor those that see pictures too.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    writes = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return writes and not config.is_encoder_decoder and hasattr(config, "hidden_size")


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model can take: its positions (RoBERTa's begin after the padding id), and what its tokenizer says."""
    config: Any = model.config
    positions = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    table: Any = getattr(embeddings, "position_embeddings", None)
    if getattr(table, "padding_idx", None) is not None:
        positions -= int(table.padding_idx) + 1
    return max(1, min(positions, int(tokenizer.model_max_length)))


def _span_class(config: Any, where: Path) -> Any:
    """transformers' class of this kind of model with a span head; for a decoder that has none, one is put together as theirs are."""
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_MAPPING
    from transformers.modeling_layers import GenericForQuestionAnswering

    if type(config) in MODEL_FOR_QUESTION_ANSWERING_MAPPING:
        return MODEL_FOR_QUESTION_ANSWERING_MAPPING[type(config)]
    if not is_decoder(config):
        raise ModelError(f"no span head for this kind of model: {config.model_type}", where=str(where), hint=_WANTED)
    plain: Any = MODEL_MAPPING[type(config)]
    name = plain.__name__.removesuffix("Model") + "ForQuestionAnswering"
    return type(name, (GenericForQuestionAnswering, plain.__base__), {"config_class": type(config)})


def _other_names(config: Any, kind: Any) -> dict[str, str] | None:
    """How weights are called in a language model's file -> in the same model under a span head, where they differ."""
    from transformers import MODEL_MAPPING

    if not is_decoder(config):
        return None
    plain: Any = MODEL_MAPPING[type(config)]
    usual = plain.base_model_prefix
    return {rf"^{usual}\.": f"{kind.base_model_prefix}."} if kind.base_model_prefix != usual else None
