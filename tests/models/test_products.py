"""float32 products stay float32, whichever library makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from campana.models import products

ZEN4 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nvendor_id\t: AuthenticAMD\n"
backend: Any = torch.backends.mkldnn


@pytest.fixture(autouse=True)
def as_it_comes() -> Iterator[None]:
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "none"
    products.choose_products.cache_clear()
    yield
    products.choose_products.cache_clear()
    backend.matmul.fp32_precision = before


def cpu(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(products, "CPU_INFO", path)


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
    assert products.choose_products() == "torch"
    assert backend.matmul.fp32_precision == "none"


def test_whatever_is_chosen_products_are_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whatever machine this runs: told that its cores gain, it chooses oneDNN only where nothing is rounded to bf16."""
    cpu(tmp_path, ZEN4, monkeypatch)
    chosen = products.choose_products()
    assert products.largest_error() < products.ROUNDING
    assert backend.matmul.fp32_precision == ("bf16" if chosen == "oneDNN" else "none")


def test_products_that_round_are_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on cores with matrix tiles, where the same setting rounds the factors to bf16."""
    exact = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda left, right: exact(left.bfloat16().float(), right.bfloat16().float()))
    cpu(tmp_path, ZEN4, monkeypatch)
    assert products.choose_products() == "torch"
    assert backend.matmul.fp32_precision == "none"


def test_loading_a_model_chooses(save_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from campana.models.load import load_model

    cpu(tmp_path, ZEN4, monkeypatch)
    load_model(save_tiny())
    assert products.choose_products.cache_info().currsize == 1
