"""The shape of a decoder language model, from its configuration alone: what its size and cost are computed from. Never loads torch.

    shape = Shape.from_config(json.loads((model_dir / "config.json").read_text()))
    num_parameters(shape)                                   # 134515008 for SmolLM2-135M
    num_lora_parameters(shape, rank=8, targets="all-linear")

Knows dense decoders with a gated feed-forward part (LLaMA and its kin). Refuses experts, encoders and whatever lacks the usual fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from campana.errors import ModelError
from campana.parts import nearest

Targets = Literal["all-linear"] | Iterable[str]

LAYER_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of one layer, in the order in which they are used. A model may fuse some (Phi-3): sizes and costs are the same."""

_EXPERT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_QKV_BIAS = {"qwen2"}
_QK_NORM = {"qwen3", "gemma3_text"}
_FOUR_NORMS = {"gemma2", "gemma3_text"}
_NO_NORM_WEIGHTS = {"olmo"}
_TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text"}
_KNOWN = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "granite", "olmo", "olmo2"}
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder. All counts are of elements."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    tied: bool
    """The output layer is the embedding matrix."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Of the attention's output matrix."""
    mlp_bias: bool = False
    num_layer_norms: int = 2
    """Norms over the hidden size in one layer; 0 where they have no weights."""
    qk_norm_size: int = 0
    """Elements of the query's and key's norms of one layer, together."""
    final_norm: bool = True
    max_length: int | None = None
    """Positions the model was made for."""
    exact: bool = True
    """False: the architecture is not known by name, and is taken for a LLaMA with these fields."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """Of a transformers `config.json`. A multimodal model's text part is taken. ModelError where a decoder's fields are missing."""
        if isinstance(text := config.get("text_config"), Mapping):
            config = {"tie_word_embeddings": config.get("tie_word_embeddings", True), **text}
        model_type = str(config.get("model_type", ""))
        if any(config.get(name) for name in _EXPERT_FIELDS):
            raise ModelError(
                f"a model with experts ({model_type}) has no simple shape", hint="its cost is not predicted; it can still be run"
            )
        heads = _required(config, "num_attention_heads", model_type)
        hidden = _required(config, "hidden_size", model_type)
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_dim = int(config.get("head_dim") or hidden // heads)
        attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
        return cls(
            vocab_size=_required(config, "vocab_size", model_type),
            hidden_size=hidden,
            num_layers=_required(config, "num_hidden_layers", model_type),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=_required(config, "intermediate_size", model_type),
            tied=bool(config.get("tie_word_embeddings", model_type in _TIED_BY_DEFAULT)),
            qkv_bias=attention_bias or model_type in _QKV_BIAS,
            output_bias=attention_bias,
            mlp_bias=mlp_bias,
            num_layer_norms=0 if model_type in _NO_NORM_WEIGHTS else 4 if model_type in _FOUR_NORMS else 2,
            qk_norm_size=_qk_norm_size(model_type, heads, kv_heads, head_dim),
            final_norm=model_type not in _NO_NORM_WEIGHTS,
            max_length=config.get("max_position_embeddings"),
            exact=model_type in _KNOWN,
        )

    @property
    def query_size(self) -> int:
        """Elements of one position's queries, all heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of one position's keys, all heads; the values are as many."""
        return self.num_kv_heads * self.head_dim

    def linear(self, name: str) -> tuple[int, int]:
        """(inputs, outputs) of a matrix: one of `LAYER_LINEARS`, `lm_head`, or `embed_tokens` (a look-up of vocabulary rows)."""
        sizes = {
            "q_proj": (self.hidden_size, self.query_size),
            "k_proj": (self.hidden_size, self.kv_size),
            "v_proj": (self.hidden_size, self.kv_size),
            "o_proj": (self.query_size, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
            "lm_head": (self.hidden_size, self.vocab_size),
            "embed_tokens": (self.vocab_size, self.hidden_size),
        }
        return sizes[name]


def _required(config: Mapping[str, Any], name: str, model_type: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(
            f"config.json of a {model_type or 'nameless'} model gives {name} as {value!r}", hint="a decoder language model is needed here"
        )
    return value


def _qk_norm_size(model_type: str, heads: int, kv_heads: int, head_dim: int) -> int:
    if model_type in _QK_NORM:
        return 2 * head_dim
    return (heads + kv_heads) * head_dim if model_type == "olmo2" else 0


def num_parameters(shape: Shape) -> int:
    """Parameters of the whole model; a tied output layer is counted once."""
    matrices = sum(inputs * outputs for inputs, outputs in map(shape.linear, LAYER_LINEARS))
    biases = (shape.query_size + 2 * shape.kv_size) * shape.qkv_bias + shape.hidden_size * shape.output_bias
    biases += (2 * shape.intermediate_size + shape.hidden_size) * shape.mlp_bias
    norms = shape.num_layer_norms * shape.hidden_size + shape.qk_norm_size
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    return shape.num_layers * (matrices + biases + norms) + embeddings + shape.hidden_size * shape.final_norm


def resolve_targets(targets: Targets) -> frozenset[str]:
    """The matrices that `targets` names: `all-linear` is every one of a layer; fused names stand for their parts."""
    if targets == "all-linear":
        return frozenset(LAYER_LINEARS)
    known = (*LAYER_LINEARS, "lm_head", "embed_tokens")
    found: set[str] = set()
    for target in [targets] if isinstance(targets, str) else targets:
        name = target.rsplit(".", 1)[-1]
        if name not in known and name not in _FUSED:
            raise ModelError(f"no linear layer is named {target!r}", where="method.targets", hint=nearest(name, [*known, *_FUSED]))
        found.update(_FUSED.get(name, (name,)))
    return frozenset(found)


def num_lora_parameters(shape: Shape, rank: int, targets: Targets, *, dora: bool = False) -> int:
    """Parameters of LoRA's factors, rank * (inputs + outputs) a matrix (Hu et al. 2021); DoRA adds one magnitude an output."""
    names = resolve_targets(targets)

    def of(name: str) -> int:
        inputs, outputs = shape.linear(name)
        return rank * (inputs + outputs) + outputs * dora

    return sum(of(name) * (shape.num_layers if name in LAYER_LINEARS else 1) for name in names)
