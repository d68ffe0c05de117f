"""`campana show` and `campana report`: what a study says, as text, JSON and a page."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from campana.cli.plans import Opened, open_study
from campana.core.store import Store
from campana.errors import StoreError, UserError
from campana.outcome import gather
from campana.parts import nearest
from campana.study import Study

OWNER = "study.txt"
"""In a report's default folder: which study it is of, as the place of its file seen from the store."""

SHOWN = ("study", "answer", "arms", "measure", "costs", "pareto", "fairness", "missing", "warnings")

SHOW_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "campana.show/1",
    "type": "object",
    "required": ["schema", "study", "answer", "arms", "measure", "costs"],
    "properties": {
        "schema": {"const": "campana.show/1"},
        **{name: {"description": f"As `{name}` of campana.report/1."} for name in SHOWN},
    },
}


def open_results(study_path: Path, store_path: Path) -> Opened:
    """A study and the store that holds what it has built. StoreError where there is no store."""
    opened = open_study(study_path, store_path)
    if not opened.store.root.is_dir():
        where, hint = str(store_path), "run the study first, or say where it was run: --store, or CAMPANA_STORE in the environment"
        raise StoreError("there is no store here", where=where, hint=hint)
    return opened


def show(study_path: Path, store_path: Path, item: str | None, as_json: bool) -> str:
    """The answer of a study as text or as `campana.show/1`; or one item with all its answers."""
    opened = open_results(study_path, store_path)
    report = gather(opened.study, opened.store)
    if item is not None:
        return _item(report, item, as_json)
    if as_json:
        kept = {name: report[name] for name in SHOWN if name in report}
        return json.dumps({"schema": "campana.show/1", **kept}, ensure_ascii=False, indent=1)
    from campana.report.terminal import summary

    return summary(report, 100)


def _item(report: dict[str, Any], item_id: str, as_json: bool) -> str:
    items = {item["id"]: item for item in report.get("items", [])}
    if item_id not in items:
        if not items:
            raise UserError("no answers yet", hint="campana run STUDY")
        raise UserError(f"no item {item_id!r}", hint=nearest(item_id, list(items)[:200]))
    if as_json:
        return json.dumps(items[item_id], ensure_ascii=False, indent=1)
    from campana.report.terminal import item_text

    return item_text(items[item_id], 100)


def default_report_dir(study: Study, store: Store) -> Path:
    """Where a study's report goes when nobody says: `reports/<study>`, or beside it where another file of that name has its report."""
    folder, whose = store.root / "reports" / study.name, _whose(study, store)
    if _text(folder / OWNER) in (None, whose):
        return folder
    return folder.with_name(f"{study.name}-{hashlib.sha256(whose.encode()).hexdigest()[:8]}")


def _whose(study: Study, store: Store) -> str:
    """Where a study's file lies, seen from the store: the two can be moved together."""
    return os.path.relpath(study.path.resolve(), store.root.resolve()) if study.path is not None else study.name


def write_report(study: Study, store: Store, output: Path | None) -> tuple[dict[str, Any], Path]:
    """Write report.json and report.html; returns the report and the page's path."""
    report = gather(study, store)
    return report, publish_report(report, study, store, output)


def publish_report(report: dict[str, Any], study: Study, store: Store, output: Path | None) -> Path:
    """Write a report's files; returns the page's path. What is there and unchanged is left alone."""
    from campana.report.page import render

    folder = output or default_report_dir(study, store)
    page_path = folder / "report.html"
    contents = {page_path: render(report), folder / "report.json": json.dumps(report, ensure_ascii=False, indent=1) + "\n"}
    if all(_text(path) == content for path, content in contents.items()):
        return page_path
    owner = {} if output else {folder / OWNER: _whose(study, store)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in {**owner, **contents}.items():  # The data last: it says that the page is of it.
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # Two runs of one study may end at once.
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)
    except OSError as error:
        raise UserError(f"the report cannot be written: {error.strerror}", where=str(folder), hint="give a folder: --output DIR") from error
    return page_path


def _text(path: Path) -> str | None:
    """What a file holds; None where there is none, or it is no text."""
    try:
        return path.read_bytes().decode()
    except (OSError, ValueError):
        return None
