"""What the pages show is what runs: snippets are compared with the files, studies in them are read, reference pages are fresh."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from campana.cli.reference import pages
from campana.parts import find
from campana.records import Answer, Item
from campana.study.reading import parse_document
from campana.study.schema import ArmRecipe, StudyFile

ROOT = Path(__file__).parents[2]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_shows_the_quickstart_as_it_is() -> None:
    assert (ROOT / "studies/quickstart.yaml").read_text(encoding="utf-8") in blocks(ROOT / "README.md", "yaml")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/first-study.md"], ids=lambda page: page.name)
def test_studies_in_the_pages_can_be_read(page: Path) -> None:
    for block in blocks(page, "yaml"):
        file = StudyFile.model_validate(parse_document(block).values)
        assert file.factors


def test_questions_in_the_pages_name_checks_that_exist() -> None:
    rows = [json.loads(block) for block in blocks(ROOT / "docs/first-study.md", "json")]
    assert rows
    for row in rows:
        for check in row["checks"]:
            find("check", check["kind"]).model_validate(check)


def test_the_check_that_contributing_shows_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "shown_check.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    check = importlib.import_module("shown_check").Shouting()
    item = Item("q", "echo", ({"role": "user", "content": "Shout."},))
    scores = [check.score(item, Answer("q", (text,), "stop", 1, 1)).value for text in ("HO!", "Ho!")]
    assert scores == [1.0, 0.0]


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_is_fresh() -> None:
    for name, text in pages().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"docs/{name} is stale: make docs"


def test_every_field_of_the_study_file_says_what_it_is() -> None:
    for model in (StudyFile, ArmRecipe):
        for name, info in model.model_fields.items():
            assert info.description, f"{model.__name__}.{name} has no docstring"
