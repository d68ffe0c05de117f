"""float32 products stay float32, whichever library makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from campana.models import products

ZEN4 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nvendor_id\t: AuthenticAMD\n"
backend: Any = torch.backends.mkldnn


@pytest.fixture(autouse=True)
def a_machine_that_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever this machine is, it says that its cores are such ones."""
    (tmp_path / "cpuinfo").write_text(ZEN4)
    monkeypatch.setattr(products, "CPU_INFO", tmp_path / "cpuinfo")
    products.is_quick.cache_clear()
    yield
    products.is_quick.cache_clear()


@pytest.mark.parametrize(
    ("text", "slow"),
    [
        (ZEN4, True),
        (ZEN4.replace("avx512f avx512_bf16", ""), False),
        (ZEN4.replace("AuthenticAMD", "GenuineIntel"), False),
        (ZEN4.replace("avx512f", "avx512f amx_tile amx_bf16"), False),
    ],
)
def test_only_amd_cores_with_avx512_and_no_matrix_tiles_are_asked(text: str, slow: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert products.mkl_is_slow(tmp_path / "cpuinfo") is slow


def test_a_machine_without_the_file_keeps_torchs_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CPU_INFO", tmp_path / "absent")
    with products.quick_products():
        assert backend.matmul.fp32_precision == "none"


def test_whatever_is_asked_for_products_are_float32_and_the_setting_is_given_back() -> None:
    """On whatever machine this runs: oneDNN is asked only where nothing is rounded to bf16."""
    with products.quick_products():
        assert products.largest_error() < products.ROUNDING
        assert backend.matmul.fp32_precision == ("bf16" if products.is_quick() else "none")
    assert backend.matmul.fp32_precision == "none"


def test_the_setting_stays_until_the_last_thread_has_left_and_may_be_left_out_between() -> None:
    if not products.is_quick():
        pytest.skip("oneDNN's products round on this machine")
    first, second = products.quick_products(), products.quick_products()
    with first:
        second.__enter__()  # as another thread that leaves later
        with products.torchs_products():
            assert backend.matmul.fp32_precision == "none"
        assert backend.matmul.fp32_precision == "bf16"
    assert backend.matmul.fp32_precision == "bf16"
    second.__exit__(None, None, None)
    assert backend.matmul.fp32_precision == "none"


def test_products_that_round_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on cores with matrix tiles, where the same setting rounds the factors to bf16."""
    exact = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right: exact(left.bfloat16().float(), right.bfloat16().float()))
    with products.quick_products():
        assert backend.matmul.fp32_precision == "none"
