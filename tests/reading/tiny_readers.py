"""Tiny real readers: two layers, a WordPiece or byte-level vocabulary of a few hundred tokens, made on the spot."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

TEXT = [
    "Rome is the capital of Italy and Paris is the capital of France .",
    "who what where when is was the capital of a city in 1998 and 2001 ?",
    "Anna went to Rome in 1998 , Ben to Paris in 2001 .",
]


def word_pieces() -> Any:
    """BERT's normaliser, pre-tokenizer and layout over a small vocabulary; the same one at each call."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_word_pieces()), model_max_length=128, **names)


@cache
def _word_pieces() -> str:
    # Not trained: a trainer breaks ties differently in each process, and a run of the tests would learn from other ids than the next.
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = sorted({word for text in TEXT for word in text.lower().split()})
    characters = sorted(set("".join(words)))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *characters, *(f"##{each}" for each in characters)]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend.to_str()


def byte_level() -> Any:
    """RoBERTa's way: bytes, a leading space that belongs to the word, two separators between the texts."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_byte_level()), model_max_length=128, **names)


@cache
def _byte_level() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT * 20, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False)
    return backend.to_str()


def decoder_tokens() -> Any:
    """A language model's tokenizer: the bytes of `byte_level`, no form for two texts, `<s>` before a text."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    stored = json.loads(_byte_level())
    backend = Tokenizer.from_str(json.dumps(stored | {"post_processor": None}))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def tiny_decoder(kind: str = "Llama", seed: int = 0, **changes: Any) -> Any:
    """A two-layer language model of a kind that transformers knows, random weights."""
    import torch
    import transformers

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    if kind == "OPT":
        sizes |= {"ffn_dim": 48, "word_embed_proj_dim": 32}
    elif kind != "GPT2":
        sizes |= {"num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(seed)
    known = {"vocab_size": 320, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**{**known, **sizes, **changes})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def tiny_bert(seed: int = 0, **changes: Any) -> Any:
    """A two-layer BERT with a span head, random weights."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(seed)
    config = BertConfig(**{"vocab_size": 200, "max_position_embeddings": 128, "initializer_range": 0.5, **sizes, **changes})
    return BertForQuestionAnswering(config).eval()


def tiny_roberta(seed: int = 0) -> Any:
    """A two-layer RoBERTa with a span head: positions begin after the padding id, one type of token."""
    import torch
    from transformers import RobertaConfig, RobertaForQuestionAnswering

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(seed)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = RobertaConfig(vocab_size=320, max_position_embeddings=130, type_vocab_size=1, initializer_range=0.5, **ids, **sizes)
    return RobertaForQuestionAnswering(config).eval()
