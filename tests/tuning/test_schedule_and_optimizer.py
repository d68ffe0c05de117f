"""Learning-rate schedules, and which parameters decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from campana.tuning.optimizer import build, learning_parameters, set_rate
from campana.tuning.options import Adafactor, AdamW, Optimizer, Schedule
from campana.tuning.schedule import share

KINDS = ["cosine", "linear", "constant", "wsd"]


@given(
    kind=st.sampled_from(KINDS),
    warmup=st.floats(0, 0.9),
    decay=st.floats(0.01, 1.0),
    floor=st.floats(0, 1),
    num_steps=st.integers(1, 300),
)
def test_every_step_learns_and_none_exceeds_the_peak(kind: Any, warmup: float, decay: float, floor: float, num_steps: int) -> None:
    moved = {
        "warmup": warmup,
        **({"decay": min(decay, 1 - warmup)} if kind == "wsd" else {}),
        **({} if kind == "constant" else {"floor": floor}),
    }
    schedule = Schedule.model_validate({"kind": kind, **moved})
    shares = [share(schedule, step, num_steps) for step in range(num_steps)]
    assert all(0.0 < s <= 1.0 for s in shares)
    peak = min(round(warmup * num_steps), num_steps - 1)
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "cosine", "decay": 0.5}, "`decay` is of kind wsd"),
        ({"kind": "constant", "floor": 0.5}, "a constant schedule has none"),
        ({"kind": "wsd", "warmup": 0.9, "decay": 0.5}, "more than the whole run"),
    ],
)
def test_a_field_that_moves_nothing_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Schedule.model_validate(fields)


def test_shapes() -> None:
    assert [share(Schedule(kind="linear", warmup=0.2, floor=0.0), s, 10) for s in (0, 1, 2, 6, 9)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.5, 0.125]
    )
    assert share(Schedule(kind="cosine", warmup=0.0, floor=0.1), 50, 100) == pytest.approx(0.55)
    assert share(Schedule(kind="constant", warmup=0.0), 99, 100) == 1.0
    wsd = Schedule(kind="wsd", warmup=0.0, decay=0.2)
    assert [share(wsd, s, 10) for s in (0, 7, 8, 9)] == pytest.approx([1, 1, 1, 0.5])


def test_nested_sizes_share_the_stable_part_of_wsd() -> None:
    short, long = (([share(Schedule(kind="wsd", warmup=0.0, decay=0.2), s, n) for s in range(n)]) for n in (50, 100))
    assert short[:40] == long[:40]


def test_only_matrices_decay_and_tied_weights_count_once() -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(7, 4), "norm": torch.nn.LayerNorm(4), "head": torch.nn.Linear(4, 7)})
    model["head"].weight = model["embed"].weight
    model["norm"].bias.requires_grad_(False)
    optimizer = build(model, AdamW(weight_decay=0.1), 1e-3)
    assert list(learning_parameters(model)) == ["embed.weight", "norm.weight", "head.bias"]
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(0.1, 1), (0.0, 2)]
    set_rate(optimizer, 5e-4)
    assert {g["lr"] for g in optimizer.param_groups} == {5e-4}


def test_an_optimiser_is_named_by_its_kind_and_is_adamw_without_one() -> None:
    read = TypeAdapter(Optimizer).validate_python
    assert read({"weight_decay": 0.1}) == AdamW(weight_decay=0.1)
    assert read("adafactor") == Adafactor()
    assert read({"kind": "adafactor", "clip": 2.0}) == Adafactor(clip=2.0)
    with pytest.raises(ValidationError, match="adamw"):
        read("adamm")


def test_adafactor_keeps_a_number_a_row_and_a_column_and_learns() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 60)
    x, y = torch.randn(200, 40), torch.randn(200, 60)
    before = torch.nn.functional.mse_loss(model(x), y).item()

    def trained(options: Any, rate: float) -> tuple[float, int]:
        torch.manual_seed(0)
        model = torch.nn.Linear(40, 60)
        optimizer = build(model, options, rate)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        state = sum(t.numel() for values in optimizer.state.values() for t in values.values())
        return torch.nn.functional.mse_loss(model(x), y).item(), state

    (lean_loss, lean_state), (loss, state) = trained(Adafactor(), 3e-2), trained(AdamW(), 1e-2)
    assert lean_state == 40 + 60 + 60 + 2  # rows and columns of the matrix, the bias in full, and two counts of steps
    assert state == 2 * (40 * 60 + 60) + 2
    assert lean_loss < before - 0.8 * (before - loss)
