"""What tests of several rooms need."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from campana.models.cache import default_cache_dir
from campana.native.build import BF16, CODES, FP32, Code, Unavailable, missing
from campana.native.compiled import Compiled
from campana.native.tokens import Tokens

if TYPE_CHECKING:
    import torch


AVX512 = Path(__file__).parent / "native" / "avx512" / "immintrin.h"


class OnAvx2(Code):
    """The C files for bf16 with AVX-512's operations made of others: as exact, not as quick."""

    @property
    def flags(self) -> tuple[str, ...]:
        digest = hashlib.sha256(AVX512.read_bytes()).hexdigest()[:8]  # the cache knows only flags and the package's own files
        return (*super().flags, "-O2", "-Wno-psabi", f"-I{AVX512.parent}", f"-DEMULATION_{digest}")


def _loaded(precision: Any, emulated: bool = bool(missing(BF16))) -> Compiled:
    with pytest.MonkeyPatch.context() as patch:
        if precision == "bf16" and emulated:
            patch.setitem(CODES, precision, OnAvx2("bf16", FP32.instructions))
        try:
            return Compiled.load(precision, default_cache_dir())
        except Unavailable as error:
            pytest.skip(f"no compiled code for {precision} here: {error}")


@pytest.fixture(scope="session")
def compiled() -> Compiled:
    """Compiled code for bf16, emulated where the processor has no such units, or a skip that says why there is none."""
    return _loaded("bf16")


@pytest.fixture(scope="session")
def emulated() -> Compiled:
    """The same code on AVX2 even where the processor has units for bf16."""
    return _loaded("bf16", emulated=True)


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
