"""What the command says of itself."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from campana.cli.app import app


def test_version_is_that_of_the_installed_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"campana {version('campana')}\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_every_command(words: list[str]) -> None:
    said = CliRunner().invoke(app, words).output
    assert all(name in said for name in ("plan", "run", "why", "show", "report", "verify", "gc", "describe", "read"))
