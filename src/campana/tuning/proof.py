"""The proof at the start of a run: on real rows, what we compute of a pack is what the model's own forward pass computes of each row.

It compares packs, attention within segments, sliding windows and every fused operation by the last hidden states, vector by vector,
so that no two errors cancel; and the output layer at supervised positions by the loss. Whatever an architecture does that we do not
know (another logit scale, a mask of its own, a layer that looks across rows) shows here, before any weight has moved.

    rows = sample(config, train, validation)
    expected = reference(model, rows)            # before the model is changed
    network = proven(network, rows, expected, precision)    # ModelError where they differ
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError
from campana.tuning.packs import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from campana.tuning.forward import Network
    from campana.tuning.packs import Row

NUM_ROWS = 3
MAX_TOKENS = 96
"""Of each row: the proof must cost a moment, not a minute."""
BEYOND = 32
"""Tokens by which a row goes beyond a sliding window."""
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "local_attention", "attention_window_size")
"""Names that configurations have for how far a token sees."""
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""Relative difference of the mean loss. A wrong mask or scale moves it by far more than rounding does."""
HIDDEN_TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}
"""Relative difference of a row's hidden states (of norms). Rounding moves it by 3e-6 and 2e-2, a wrong mask by 0.3 and more."""


@dataclass(frozen=True)
class Sample:
    """Rows that the proof is made on."""

    rows: tuple[Row, ...]
    """Short beginnings."""
    beyond: tuple[tuple[int, Row], ...]
    """How far a token sees, and a row in which some tokens do not see its beginning: those are the supervised ones."""


@dataclass(frozen=True)
class Reference:
    """What the model itself computes."""

    loss: float
    """The mean of the short rows' supervised tokens."""
    hidden: tuple[Tensor, ...]
    """Of each row, the short ones first, at its predicting positions: (N, D) fp32."""


def sample(config: Any, train: Any, validation: Any) -> Sample:
    """A few rows of the training data, cut short after a supervised token; and one beyond each window, where any row is so long."""
    found: list[Row] = []
    for index in range(min(NUM_ROWS, len(train))):
        ids, supervised = train.row(index)
        first = int(supervised[1:].argmax()) + 2
        end = max(first, min(MAX_TOKENS, len(ids)))
        found.append((ids[:end], supervised[:end]))
    beyond = ((window, _beyond(window, train) or _beyond(window, validation)) for window in _windows(config))
    return Sample(tuple(found), tuple((window, row) for window, row in beyond if row is not None))


def _windows(config: Any) -> list[int]:
    values = {getattr(config.get_text_config(), name, None) for name in WINDOWS}
    return sorted(value for value in values if isinstance(value, int) and value > 0)


def _beyond(window: int, rows: Any) -> Row | None:
    import numpy as np

    long = (rows.lengths >= window + 2).nonzero()[0]
    if not len(long):
        return None
    ids = rows.row(int(long[0]))[0][: window + BEYOND]
    return ids, np.arange(len(ids)) > window


def reference(model: PreTrainedModel, found: Sample) -> Reference:
    """By the model's own forward pass, each row alone. Raises ModelError for a model whose decoder cannot be run by itself."""
    import torch

    total, count = 0.0, 0
    hidden: list[Tensor] = []
    with torch.no_grad():
        for number, row in enumerate((*found.rows, *(row for _, row in found.beyond))):
            pack = together([row]).to(model.device)
            try:
                states: Tensor = model.get_decoder()(input_ids=pack.ids[None], use_cache=False).last_hidden_state[0]
            except (AttributeError, TypeError) as error:
                raise ModelError(f"{type(model).__name__} has no decoder that runs by itself: {error}", hint="use another model") from error
            hidden.append(states[pack.predicting].float())
            if number < len(found.rows):
                logits_TV: Tensor = model(input_ids=pack.ids[None], use_cache=False).logits[0].float()
                total += torch.nn.functional.cross_entropy(logits_TV[pack.predicting], pack.targets, reduction="sum").item()
                count += pack.targets.numel()
    return Reference(total / count, tuple(hidden))


def proven(network: Network, found: Sample, expected: Reference, precision: str) -> Network:
    """The network, with each row run apart where it is right so and not in packs. Raises ModelError: it is right in neither way."""
    try:
        check(network, found, expected, precision)
    except ModelError as in_packs:
        if not network.whole_packs:
            raise
        network = network.apart()
        try:
            check(network, found, expected, precision)
        except ModelError:
            raise in_packs from None
    return network


def check(network: Network, found: Sample, expected: Reference, precision: str) -> None:
    """Raise ModelError where what we compute differs from `expected`."""
    import torch

    name = type(network.model).__name__
    rows = [*found.rows, *(row for _, row in found.beyond)]
    with torch.no_grad():
        states = torch.cat([network.hidden(pack.to(network.device)).float() for pack in _packs(network, rows)])
        losses = [network.loss(pack.to(network.device), 1.0).item() for pack in _packs(network, found.rows)]
    loss = sum(losses) / sum(len(part) for part in expected.hidden[: len(found.rows)])
    parts = states.split([len(part) for part in expected.hidden])
    for number, (ours, theirs) in enumerate(zip(parts, expected.hidden, strict=True)):
        wanted = theirs.to(ours.device)
        difference = float((ours - wanted).norm() / wanted.norm())
        if difference <= HIDDEN_TOLERANCE[precision]:
            continue
        if number < len(found.rows):
            raise ModelError(
                f"the trainer's hidden states of a row differ from those that {name} itself computes by {difference:.2g} of their size",
                hint="this architecture does something that the trainer does not know; use another model",
            )
        window = found.beyond[number - len(found.rows)][0]
        raise ModelError(
            f"beyond the window of {window} tokens the trainer's hidden states differ from those that {name} itself computes by"
            f" {difference:.2g} of their size",
            hint=f"rows that no window cuts are right: tune: {{max_length: {window}}}",
        )
    if not abs(loss - expected.loss) <= TOLERANCE[precision] * max(1.0, abs(expected.loss)):
        raise ModelError(
            f"the trainer computes a loss of {loss:.6f} where {name} itself computes {expected.loss:.6f}",
            hint="this architecture does something that the trainer does not know; use another model",
        )


def _packs(network: Network, rows: Sequence[Row]) -> list[Any]:
    return [together(rows)] if network.whole_packs else [together([row]) for row in rows]
