"""Tiny random models of several families, a tiny tokenizer, and requests of uneven lengths."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campana.generation.engine import Completion, Greedy, Phases, Request, Sample

VOCAB = 2500
"""Above two blocks of the two-step argmax."""
STOPS = frozenset(range(60))
"""So many that random answers end at uneven lengths."""

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _build(family: str) -> Any:
    import torch
    import transformers as t

    torch.manual_seed(0)
    family, _, wide = family.partition(", ")
    sizes = {**SIZES, "head_dim": 32} if wide else SIZES  # heads that the compiled operations take
    match family:
        case "llama":
            model = t.LlamaForCausalLM(t.LlamaConfig(**sizes, tie_word_embeddings=True))
        case "qwen2":
            model = t.Qwen2ForCausalLM(t.Qwen2Config(**sizes))
        case "qwen3":
            model = t.Qwen3ForCausalLM(t.Qwen3Config(**sizes))
        case "phi3":
            model = t.Phi3ForCausalLM(t.Phi3Config(**sizes))
        case "gemma2":
            model = t.Gemma2ForCausalLM(t.Gemma2Config(**sizes, sliding_window=16))
        case "gemma3":
            layers = ["sliding_attention", "full_attention"]
            model = t.Gemma3ForCausalLM(t.Gemma3TextConfig(**sizes, sliding_window=16, layer_types=layers))
        case _:
            raise ValueError(family)
    for parameter in model.parameters():  # sharper than an untrained model: answers then depend on the whole prompt
        parameter.data *= 3
    return model.eval()


@pytest.fixture(scope="session")
def models() -> Callable[[str], Any]:
    """A family's tiny model, made once."""
    made: dict[str, Any] = {}
    return lambda family: made[family] if family in made else made.setdefault(family, _build(family))


@pytest.fixture(scope="session")
def requests() -> list[Request]:
    """Prompts of 1 to 90 tokens."""
    rng = random.Random(0)
    return [Request(f"q{n}#0", tuple(rng.randrange(60, VOCAB) for _ in range(rng.choice((1, 2, 7, 20, 63, 64, 90))))) for n in range(36)]


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, Completion]]:
    """All completions of an engine, by request."""

    def run(engine: Any, model: Any, requests: list[Request], sampling: Greedy | Sample, max_new: int = 16, **more: Any) -> Any:
        told: list[int] = []
        found = list(
            engine.complete(
                model,
                requests,
                sampling,
                max_new,
                more.pop("stops", STOPS),
                told.append,
                more.pop("phases", Phases()),
                more.pop("compiled", None),
            )
        )
        assert len({completion.id for completion in found}) == len(found) == len(requests)
        assert sum(told) == sum(len(c.token_ids) + (c.finish == "stop") for c in found)
        return {completion.id: completion for completion in found}

    return run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored Llama of 320 tokens with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["user assistant system and the other words"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(1)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 256}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))
    for parameter in model.parameters():
        parameter.data *= 3
    # Ids that stop: many, so that answers of a random model end at uneven lengths.
    model.generation_config.eos_token_id = [2, *range(10, 30)]
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
