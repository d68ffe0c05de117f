"""What a decoder costs, from its shape: floating-point operations, memory, disk. Plain arithmetic; never loads torch.

    flops = training_flops(shape, num_tokens=8192, num_supervised=5400, sum_squared_lengths=4_000_000, method=Lora(rank=16))

Only work that must be done is counted: matrix products (a multiply and an add are two operations) and attention between positions
that may see each other; no padding, no recomputation, no element-wise work, no gradient of what does not learn and no gradient that
nobody needs (nothing flows back below the first adapter). Not counted: DoRA's norms, dropout, sampling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from campana.models.shape import LAYER_LINEARS, Shape, Targets, num_lora_parameters, num_parameters, resolve_targets

Precision = Literal["fp32", "bf16"]
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}


class MethodLike(Protocol):
    """A tuning method, as far as its cost goes. One with a `rank` adds LoRA factors at its `targets`; any other trains every weight."""

    @property
    def kind(self) -> Any:
        """The method's name."""
        ...


@dataclass(frozen=True, slots=True)
class Factors:
    """LoRA factors as the cost model sees them."""

    rank: int
    targets: frozenset[str]
    dora: bool = False


def factors_of(method: MethodLike | None) -> Factors | None:
    """The factors that a method adds; None: it has none (full tuning, or no method at all)."""
    rank: int | None = getattr(method, "rank", None)
    if rank is None:
        return None
    targets: Targets = getattr(method, "targets", "all-linear")
    return Factors(rank, resolve_targets(targets), bool(getattr(method, "dora", False)))


def num_trainable(shape: Shape, method: MethodLike) -> int:
    """Parameters that learn."""
    factors = factors_of(method)
    return num_parameters(shape) if factors is None else num_lora_parameters(shape, factors.rank, factors.targets, dora=factors.dora)


def training_flops(
    shape: Shape, num_tokens: int, num_supervised: int, sum_squared_lengths: int, method: MethodLike, *, causal: bool = True
) -> int:
    """Operations of forward and backward over rows with `num_tokens` tokens, `num_supervised` of them with a loss.

    `sum_squared_lengths` is the sum over rows of length squared (attention is within rows). `causal=False` counts the full squares, as
    torch's FlopCounterMode does; a sliding window's savings are not counted. Per matrix of inputs x outputs and token: 2 forward, 2 back
    to its input where that is needed, 2 for its weights where they learn. Attention: 2 products forward, 4 backward.
    """
    pairs = (sum_squared_lengths + num_tokens) // 2 if causal else sum_squared_lengths
    factors = factors_of(method)
    layer_products = 2 * pairs * shape.query_size
    if factors is None:
        layers = shape.num_layers * (3 * num_tokens * _layer_products(shape) + 6 * layer_products)
        return layers + 3 * num_supervised * _products(shape, "lm_head")
    embedding_learns = "embed_tokens" in factors.targets
    flows = embedding_learns or not factors.targets.isdisjoint(LAYER_LINEARS)
    first = _lora_layer_flops(shape, factors, num_tokens, layer_products, gradient_comes_in=embedding_learns)
    rest = _lora_layer_flops(shape, factors, num_tokens, layer_products, gradient_comes_in=flows)
    head = _linear_flops(shape, "lm_head", factors, num_supervised, input_learns=flows)
    # of an embedding's factors one is looked up: a product forward, two back
    embedding = 3 * 2 * factors.rank * shape.hidden_size * num_tokens * embedding_learns
    return first + (shape.num_layers - 1) * rest + head + embedding


def _products(shape: Shape, name: str) -> int:
    inputs, outputs = shape.linear(name)
    return 2 * inputs * outputs


def _layer_products(shape: Shape) -> int:
    return sum(_products(shape, name) for name in LAYER_LINEARS)


def _linear_flops(shape: Shape, name: str, factors: Factors, num_tokens: int, *, input_learns: bool) -> int:
    """One frozen matrix with its factors, where there are some: forward, and backward as far as a gradient is needed."""
    inputs, outputs = shape.linear(name)
    each = _products(shape, name) * (2 if input_learns else 1)
    if name in factors.targets:
        # forward A and B; gradients of A and B; back through B; and back through A only to an input that needs it
        each += 2 * factors.rank * (2 * (inputs + outputs) + outputs + inputs * input_learns)
    return each * num_tokens


def _lora_layer_flops(shape: Shape, factors: Factors, num_tokens: int, product: int, *, gradient_comes_in: bool) -> int:
    """One layer. `product` is one attention product's cost; a stage's input needs a gradient if anything before it learns."""
    flows, total = gradient_comes_in, 0
    learns = {name: flows or name in factors.targets for name in ("q_proj", "k_proj", "v_proj")}
    for name in learns:
        total += _linear_flops(shape, name, factors, num_tokens, input_learns=flows)
    scores_learn = learns["q_proj"] or learns["k_proj"]
    # backward: the weights' gradient (for q and k), then q's, k's and v's own
    total += product * (2 + scores_learn + sum(learns.values()))
    flows = any(learns.values())
    for stage in (("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)):
        total += sum(_linear_flops(shape, name, factors, num_tokens, input_learns=flows) for name in stage)
        flows = flows or any(name in factors.targets for name in stage)
    return total


def forward_flops(
    shape: Shape, num_tokens: int, num_heads: int, sum_squared_lengths: int, adapter: MethodLike | None = None, *, causal: bool = True
) -> int:
    """Operations of one forward pass, with the output layer at `num_heads` positions (a validation pass: the supervised ones)."""
    pairs = (sum_squared_lengths + num_tokens) // 2 if causal else sum_squared_lengths
    per_token, per_head = _forward_products(shape, factors_of(adapter))
    return num_tokens * per_token + num_heads * per_head + 4 * pairs * shape.query_size * shape.num_layers


def _forward_products(shape: Shape, factors: Factors | None) -> tuple[int, int]:
    """Matrix products of one token through all layers, and of one position through the output layer."""
    per_token, per_head = shape.num_layers * _layer_products(shape), _products(shape, "lm_head")
    if factors is None:
        return per_token, per_head
    added = {name: 2 * factors.rank * sum(shape.linear(name)) for name in factors.targets if name != "embed_tokens"}
    per_head += added.pop("lm_head", 0)
    per_token += shape.num_layers * sum(added.values()) + 2 * factors.rank * shape.hidden_size * ("embed_tokens" in factors.targets)
    return per_token, per_head


def generation_flops(shape: Shape, lengths: Iterable[tuple[int, int, int]], adapter: MethodLike | None = None) -> int:
    """Operations to answer prompts with a key-value cache: `lengths` holds (prompt tokens, new tokens, prompt tokens that were read for
    another prompt already) of each.

    The last new token is never read, so prompt + new - 1 tokens pass through the layers; the output layer is used once a new token.
    `adapter`: LoRA factors kept beside the weights; merged ones cost nothing.
    """
    total = 0
    for num_prompt, num_new, num_shared in lengths:
        seen = num_prompt + num_new - 1
        squares = seen * seen - num_shared * num_shared
        total += forward_flops(shape, seen - num_shared, num_new, squares, adapter) if num_new > 0 else 0
    return total


LOGIT_BLOCK_BYTES = 1 << 27
"""Of the logits that the trainer holds at once: few large products are quicker than many (benchmarks/NOTES.md, Tuning)."""


def activation_bytes_per_token(shape: Shape, method: MethodLike, *, compiled: bool, precision: Precision = "fp32") -> int:
    """What the trainer keeps of one token for the backward pass, all layers.

    In a layer: the inputs of the two norms of sums (hidden, fp32) and of other norms (in the products' type); queries and attention
    output (query_size each), keys and values (kv_size each), queries and keys once more where norms made them; log-sum-exp (fp32, one a
    head); gate and up (intermediate each). Without compiled code, which makes these again (of RMS norms and gated parts of usual widths),
    also what matrices with something to learn read: each norm's result (hidden) and the gate's product (intermediate). LoRA adds each
    factor's inner vector (rank).
    """
    factors = factors_of(method)
    each = BYTES[precision]
    wide = 4 * (min(shape.num_layer_norms or 2, 2) * shape.hidden_size + shape.num_heads)
    elements = max(0, shape.num_layer_norms - 2) * shape.hidden_size + 2 * shape.intermediate_size
    elements += (2 if shape.qk_norm_size else 1) * (shape.query_size + shape.kv_size) + shape.query_size + shape.kv_size
    if not compiled:
        elements += _read_by_what_learns(shape, set(LAYER_LINEARS) if factors is None else factors.targets)
    if factors is not None:
        elements += factors.rank * len(factors.targets & set(LAYER_LINEARS))
    return shape.num_layers * (wide + elements * each)


def _read_by_what_learns(shape: Shape, learns: set[str] | frozenset[str]) -> int:
    """Elements of one token's norm results and gate's product, of one layer, that a matrix's gradient needs."""
    groups = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
    results = shape.hidden_size * sum(not group.isdisjoint(learns) for group in groups)
    return results + shape.intermediate_size * ("down_proj" in learns)


def training_memory_bytes(
    shape: Shape,
    method: MethodLike,
    micro_batch_tokens: int,
    *,
    compiled: bool,
    precision: Precision = "fp32",
    frozen_bytes: int = 4,
    state_bytes: int = 8,
    several: bool = True,
) -> int:
    """Peak bytes of weights, gradients, optimiser state, kept activations and logits; the process itself (libraries) is not in it.

    weights: 4 a parameter that learns, `frozen_bytes` a frozen one; in `bf16` 2 more an element of every matrix where fp32 ones are
    frozen; gradients: 4 a learning parameter; AdamW: `state_bytes` (two fp32 moments) a learning parameter; activations:
    `activation_bytes_per_token` x tokens of a micro batch; logits: a block of at most `logits_bytes`, and beside it the gradient of an
    output layer that learns, or where packs before have left theirs, one block that takes no more than the two. `several`: a step has
    more than one pack, so that all gradients lie beside the activations of the next; else they take the place of used activations.
    """
    total, learning = num_parameters(shape), num_trainable(shape, method)
    is_full = factors_of(method) is None
    frozen, output = 0 if is_full else total, shape.vocab_size * shape.hidden_size
    copies = 2 * total if precision == "bf16" and not is_full and frozen_bytes != 2 else 0
    weights = learning * (4 + state_bytes) + frozen * frozen_bytes + copies
    activations = micro_batch_tokens * activation_bytes_per_token(shape, method, precision=precision, compiled=compiled)
    logits, most = micro_batch_tokens * shape.vocab_size * BYTES[precision], logits_bytes(learns=is_full)
    gradient = 4 * output if is_full and micro_batch_tokens > 0 else 0
    waits = several and logits <= most + gradient
    activations += logits if waits else min(logits, most) + gradient
    return weights + (4 * learning + activations if several else max(4 * learning, activations))


def logits_bytes(*, learns: bool) -> int:
    """Most bytes of a block of several. After each one a weight that learns is added to as a whole, so there the blocks are larger."""
    return LOGIT_BLOCK_BYTES * (2 if learns else 1)


def generation_memory_bytes(shape: Shape, num_sequences: int, max_length: int, *, precision: Precision = "fp32") -> int:
    """Peak bytes of weights, key-value cache and one step's logits for so many sequences at once, each of up to `max_length` tokens.

    cache: 2 (keys, values) x layers x kv_size a token; logits: 2 fp32 copies of one row a sequence. Libraries are not in it.
    """
    each = BYTES[precision]
    cache = 2 * shape.num_layers * shape.kv_size * num_sequences * max_length * each
    return num_parameters(shape) * each + cache + 2 * 4 * num_sequences * shape.vocab_size


def disk_bytes(shape: Shape, method: MethodLike | None = None, *, bytes_per_parameter: int = 4, checkpoint: bool = False) -> int:
    """Bytes of what is stored: the model (None or full tuning) or the adapter; a checkpoint holds two moments as well (fp32)."""
    count = num_parameters(shape) if method is None else num_trainable(shape, method)
    return count * (bytes_per_parameter + 8 * checkpoint)
