"""What tests of several rooms need."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from campana.models.cache import default_cache_dir
from campana.native.build import Unavailable
from campana.native.compiled import Compiled
from campana.native.tokens import Tokens

if TYPE_CHECKING:
    import torch


def _loaded(precision: Any) -> Compiled:
    try:
        return Compiled.load(precision, default_cache_dir())
    except Unavailable as error:
        pytest.skip(f"no compiled code for {precision} here: {error}")


@pytest.fixture(scope="session")
def compiled() -> Compiled:
    """Compiled code for bf16, or a skip that says why there is none."""
    return _loaded("bf16")


@pytest.fixture(scope="session")
def compiled_fp32() -> Compiled:
    """Compiled code for fp32, or a skip that says why there is none."""
    return _loaded("fp32")


@pytest.fixture(scope="session", params=["bf16", "fp32"])
def either(request: pytest.FixtureRequest) -> Compiled:
    """Compiled code for one type and the other, or a skip that says why there is none."""
    return _loaded(request.param)


@pytest.fixture(scope="session")
def tokens(compiled_fp32: Compiled) -> Tokens:
    """What attends of single tokens in fp32."""
    assert isinstance(compiled_fp32.step, Tokens)
    return compiled_fp32.step


@pytest.fixture
def hears_ctrl_c() -> Generator[None]:
    """SIGINT raises KeyboardInterrupt: a shell lets what it runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bytes_kept() -> Callable[[Any, Callable[[], Any]], int]:
    """What autograd keeps of a call for its backward pass, the model's own weights not counted."""
    from torch.autograd.graph import saved_tensors_hooks

    def measure(model: Any, call: Callable[[], Any]) -> int:
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            result = call()  # held until all is counted: else its storages could be given to others
        del result
        return sum(kept.values())

    return measure
