"""The page: self-contained, safe with whatever models answer, and every figure leads to its stage."""

import base64
import copy
import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from campana.cli.results import write_report
from campana.core.store import Store
from campana.outcome import gather
from campana.report import render, summary
from campana.report.answer import answer
from campana.study import Study

NASTY = "<script>alert('x')</script>"


class Seen(HTMLParser):
    """Tags, ids, links and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def page(report: dict) -> str:
    return render(report)


def unpacked(page: str, name: str) -> str:
    found = re.search(rf'<script type="application/gzip;base64" id="{name}">([^<]*)</script>', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


def test_studies_of_one_name_have_reports_of_their_own(study: Study, fill, tmp_path: Path) -> None:
    store = fill(study, tmp_path / "store")
    one, other = (replace(study, name="study", path=tmp_path / folder / "study.yaml") for folder in ("a", "b"))
    for each in (one, other):
        each.path.parent.mkdir()
        each.path.write_text(f"# {each.path}")
    pages = [write_report(each, store, None)[1] for each in (one, other, one, other)]
    assert pages[0].parent == store.root / "reports" / "study"
    assert pages[1].parent.parent == store.root / "reports"
    assert pages[0] != pages[1]
    assert pages[2:] == pages[:2]
    moved = tmp_path / "moved"
    moved.mkdir()
    for folder in ("store", "a", "b"):
        (tmp_path / folder).rename(moved / folder)
    again = [
        write_report(replace(each, path=moved / each.path.parent.name / "study.yaml"), Store(moved / "store"), None)
        for each in (one, other)
    ]
    assert [page.relative_to(moved) for _, page in again] == [page.relative_to(tmp_path) for page in pages[:2]]


def test_a_page_that_is_not_of_its_data_is_written_anew(study: Study, fill, tmp_path: Path) -> None:
    store = fill(study, tmp_path / "store")
    page_path = write_report(study, store, None)[1]
    whole, first = page_path.read_bytes(), page_path.stat()
    assert write_report(study, store, None)[1].stat().st_ino == first.st_ino
    for broken in (b"", whole[:1000], b"\xff" + whole):
        page_path.write_bytes(broken)
        write_report(study, store, None)
        assert page_path.read_bytes() == whole


def test_a_currency_is_text(report: dict) -> None:
    report = copy.deepcopy(report)
    report["costs"]["currency"] = NASTY
    assert "<script>alert" not in render(report)


def test_the_answer_comes_first(page: str, report: dict) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", page)
    assert heading is not None
    assert heading[1] == report["answer"]["measured"]["sentence"]
    assert page.index("<h1>") < page.index("<table")


def test_the_page_asks_for_nothing_from_anywhere(page: str) -> None:
    seen = Seen(page)
    for tag, attrs in seen.tags:
        assert "src" not in attrs, tag
        assert str(attrs.get("href", "#")).startswith(("#", "data:")), attrs
    policy = next(attrs["content"] for attrs in seen.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    assert "http" not in str(policy)
    assert "@import" not in page
    assert "url(" not in page


def test_every_link_and_every_figure_leads_somewhere(page: str) -> None:
    seen = Seen(page)
    assert len(seen.ids) == len(set(seen.ids))
    links = [str(attrs["href"])[1:] for attrs in seen.all("a") if attrs.get("href")]
    assert links
    assert set(links) <= set(seen.ids)
    figures = [attrs for attrs in seen.all("a") if attrs.get("class") == "fig"]
    assert len(figures) > 100
    assert all(str(attrs["href"]).startswith("#stage-") and attrs["title"] for attrs in figures)


def test_answers_and_prompts_are_data_and_never_markup(page: str, report: dict) -> None:
    assert any(NASTY in turn for item in report["items"] for given in item["answers"]["untuned"] for turn in given["turns"])
    assert NASTY not in page
    assert json.loads(unpacked(page, "page-data"))["items"] == report["items"]


def test_names_reasons_and_questions_are_escaped(report: dict) -> None:
    report = copy.deepcopy(report)
    report["study"]["question"] = report["study"]["name"] = NASTY
    report["answer"]["measured"]["sentence"] = NASTY
    report["warnings"] = [{"kind": "x", "arms": [], "text": NASTY}]
    for arm in report["arms"]:
        arm["short"] = NASTY + arm["short"]
    report["missing"] = [{"kind": "tune", "label": NASTY, "key": "0" * 64, "arms": [], "measured": {"num_failed": 1, "last": None}}]
    report["missing"][0]["measured"]["last"] = {"outcome": "failed", "error": NASTY}
    for row in report["provenance"]:
        row["label"] = NASTY
    for entry in report["data"]:
        entry["names"] = {"0": NASTY}
    report["fairness"]["same"][NASTY] = NASTY
    page = render(report)
    assert NASTY not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    # plotly reads a few tags in its own texts: names must not reach it as such
    assert NASTY not in json.dumps(json.loads(unpacked(page, "page-data"))["figures"])


def test_every_section_of_a_finished_study_is_there(page: str) -> None:
    assert {"verdicts", "tradeoff", "categories", "training", "costs", "data", "fairness", "prompts", "provenance"} <= set(Seen(page).ids)


def test_a_half_finished_study_has_a_page_that_says_so(study: Study, fill, tmp_path: Path) -> None:
    for until in ("model", "tune"):
        page = render(gather(study, fill(study, tmp_path / "half", until=until)))
        ids = set(Seen(page).ids)
        assert not {"verdicts", "tradeoff", "categories", "prompts"} & ids
        assert ("training" in ids) == (until == "tune")
        assert "No answer yet" in page
        assert "Half-way" in page
        assert "score so far" not in page
    assert "score so far" in render(gather(study, fill(study, tmp_path / "half", until="check")))


def test_the_page_of_an_empty_store(study: Study, tmp_path: Path) -> None:
    assert "No answer yet: 0 of" in render(gather(study, Store(tmp_path / "empty")))


def test_a_model_whose_operations_nobody_knows_has_a_page(report: dict) -> None:
    unknown = copy.deepcopy(report)
    for costs in unknown["costs"]["arms"].values():
        costs["making"]["flops"] = None
    unknown["answer"] = answer(unknown["measure"], unknown["costs"], unknown["arms"], (1, 1))
    assert all(detail["cost_ratio"] is None for detail in unknown["answer"]["details"])
    assert render(unknown)
    assert summary(unknown)


def test_charts_hold_the_figures_of_the_report(page: str, report: dict) -> None:
    figures = json.loads(unpacked(page, "page-data"))["figures"]
    assert set(figures) == {f"tradeoff/{unit}" for unit in ("seconds", "money", "flops", "supervised_tokens")} | {
        "categories",
        "validation",
        "train",
    }
    points = {tuple(trace["text"]): trace for trace in figures["tradeoff/flops"]["data"] if "text" in trace}
    for arm in report["arms"]:
        trace = points[(arm["short"],)]
        assert trace["x"] == [report["costs"]["arms"][arm["name"]]["making"]["flops"]]
        assert trace["y"] == [arm["score"]["mean"]]
        assert trace["error_y"]["array"][0] == pytest.approx(arm["score"]["high"] - arm["score"]["mean"])
    colors = {
        name: {trace["marker"]["color"] for trace in figures[name]["data"] if "marker" in trace}
        for name in ("categories", "tradeoff/flops")
    }
    assert colors["categories"] == colors["tradeoff/flops"]


def test_the_same_report_gives_the_same_page(report: dict) -> None:
    assert render(report) == render(copy.deepcopy(report))


@pytest.mark.slow
def test_a_browser_draws_the_charts_and_lists_the_answers_as_text(page: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *flags, profile, "--window-size=390,2000", "--virtual-time-budget=20000", "--dump-dom", path.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    assert 'data-ready="yes"' in drawn
    assert drawn.count('class="main-svg"') >= 4
    assert drawn.count('class="card"') == 24
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in drawn
    assert NASTY not in drawn
