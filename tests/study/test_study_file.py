"""The study file, right and wrong: what a person types, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from campana.checks.exact import Exact
from campana.checks.number import NumberCheck
from campana.core.digest import digest_path
from campana.core.spec import Source
from campana.errors import DataError, StudyError
from campana.study import Study, StudyFile, build_study, load_study
from campana.study.reading import parse_document, read_document
from campana.study.wiring import ArmStages

Edited = Callable[..., Study]


def keys(study: Study) -> dict[str, str]:
    return {arm.name: study.measure.key + arm.stages.check[0].key for arm in study.arms}


def test_arms_are_the_product_and_the_baselines(edited: Edited) -> None:
    study = edited()
    assert [arm.name for arm in study.arms] == [
        "method=full size=small",
        "method=full size=large",
        "method=lora size=small",
        "method=lora size=large",
        "untuned",
    ]
    untuned = study.arms[-1]
    assert untuned.baseline
    assert not untuned.stages.tune
    assert untuned.stages.generate[0].key == untuned.stages.generate[1].key  # Greedy and untuned: seeds move nothing.


def test_what_arms_share_is_one_stage(edited: Edited) -> None:
    full, _, lora, _, _ = edited().arms
    assert full.stages.prepare is not None
    assert lora.stages.prepare is not None
    assert full.stages.prepare.key == lora.stages.prepare.key
    assert full.stages.tune[0].key != lora.stages.tune[0].key


def test_contrasts_are_matched_on_the_other_factors(edited: Edited) -> None:
    spec = edited().measure.spec
    first = spec.contrasts[0]  # type: ignore[attr-defined]
    assert first.primary
    assert first.left == ("method=lora size=small", "method=lora size=large")
    assert first.right == ("method=full size=small", "method=full size=large")
    names = [contrast.name for contrast in spec.contrasts]  # type: ignore[attr-defined]
    assert names[:2] == ["method: lora - full", "size: large - small"]
    assert "method=full size=small - untuned" in names


def test_python_and_yaml_give_the_same_keys(folder: Path) -> None:
    document = read_document(folder / "study.yaml")
    built = build_study(StudyFile.model_validate(document.values), name="another name", base_dir=folder, cores=7)
    assert keys(built) == keys(load_study(folder / "study.yaml", cores=1))


def test_one_learning_rate_changes_one_methods_tunes_only(folder: Path, edited: Edited) -> None:
    before = {arm.name: arm.stages for arm in load_study(folder / "study.yaml", cores=1).arms}
    after = {arm.name: arm.stages for arm in edited("tune.lr: 1e-4", "tune.lr: 3e-4").arms}
    moved = {name for name in before if before[name].tune and before[name].tune[0].key != after[name].tune[0].key}
    assert moved == {"method=lora size=small", "method=lora size=large"}


def test_names_paths_and_execution_are_not_in_keys(folder: Path, edited: Edited) -> None:
    before = load_study(folder / "study.yaml", cores=1).arms[0].stages.check[0].key
    (folder / "rows.jsonl").rename(folder / "moved.jsonl")
    after = edited(
        "  rows: {path: rows.jsonl",
        "  others: {path: moved.jsonl",
        "{rows: 4}",
        "{others: 4}",
        "{rows: 4}",
        "{others: 4}",
        "{rows: 8}",
        "{others: 8}",
        "batch_tokens: 64",
        "batch_tokens: 64\n    micro_batch_tokens: 32",
    )
    assert after.arms[0].stages.check[0].key == before


def test_a_search_makes_trials_of_equal_budget_and_a_select(edited: Edited) -> None:
    study = edited("tune.lr: 1e-5", "tune.lr: {search: [1e-5, 3e-5]}", "tune.lr: 1e-4", "tune.lr: {search: [3e-4, 1e-4]}")
    stages = study.arms[2].stages
    assert [trial.spec.learning_rate.value for trial in stages.trials] == [1e-4, 3e-4]  # type: ignore[attr-defined]
    assert {trial.spec.budget for trial in stages.trials} == {0.25}  # type: ignore[attr-defined]
    assert stages.tune[0].inputs["select"] is stages.select


WRONG = [
    ("unknown field", ("epochs: 1", "epoch: 1"), "study.yaml:13 base.tune.epoch", "is not a field", "'epochs'"),
    ("unknown top field", ("seeds:", "seed:"), "study.yaml:3 seed", "is not a field", "'seeds'"),
    ("wrong type", ("epochs: 1", "epochs: many"), "study.yaml:13 base.tune.epochs", "must be a number, not 'many'", ""),
    (
        "empty factor",
        ("  size:\n    small: {tune.data: {rows: 4}}\n    large: {tune.data: {rows: 8}}", "  size: {}"),
        "study.yaml:17 factors",
        "no levels",
        "",
    ),
    ("undeclared field", ("tune.lr: 1e-4}", "tune.lr: 1e-4, tune.epochs: 2}"), "study.yaml:19", "does not declare", "tune.epochs"),
    (
        "missing file",
        ("path: rows.jsonl", "path: row.jsonl"),
        "study.yaml:6 data.rows.path",
        "no such file: row.jsonl",
        "relative to the study file",
    ),
    ("one name twice", ("    large:", "    small:"), "study.yaml:23", "'small' is there twice (first in line 22)", "another name"),
    ("an alias in itself", ("base:\n", "base: &base\n  check: *base\n"), "study.yaml:9", "contains itself", ""),
    ("a tab", ("  model: tiny", "\tmodel: tiny"), "study.yaml:10", "tab", "spaces"),
    (
        "unknown method",
        ("tune.method: full", "tune.method: ful"),
        "study.yaml:19 factors.method.full.tune.method",
        "unknown method 'ful'",
        "",
    ),
    ("unknown method field", ("rank: 4", "rnk: 4"), "study.yaml:20 factors.method.lora.tune.method", "rnk", "rank"),
    ("unknown level", ("method=lora, method=full", "method=loro, method=full"), "study.yaml:2", "no level 'loro'", "'lora'"),
    ("unknown data set", ("data: {rows: 4}\n    epochs", "data: {rose: 4}\n    epochs"), "", "", ""),
    (
        "unknown suite",
        ("suite: questions", "suite: question"),
        "study.yaml:16 base.generate.suite",
        "unknown suite 'question'",
        "'questions'",
    ),
    (
        "two factors, one field",
        ("baselines:", "  more:\n    a: {tune.lr: 1e-3}\n    b: {tune.lr: 1e-4}\nbaselines:"),
        "factors.more",
        "both set tune.lr",
        "",
    ),
    ("unequal search", ("tune.lr: 1e-4", "tune.lr: {search: [1e-4, 3e-4]}"), "factors", "same learning-rate search", "as many candidates"),
    ("equal seeds", ("[0, 1]", "[0, 0]"), "study.yaml:3 seeds", "two seeds are equal", ""),
    ("a rate in words", ("tune.lr: 1e-5", "tune.lr: fast"), "study.yaml:19", "must be a number", ""),
    ("true is no number", ("data: {rows: 8}", "data: {rows: true}"), "study.yaml:23", "rows cannot be true", ""),
    ("true is no rate", ("tune.lr: 1e-5", "tune.lr: true"), "study.yaml:19 factors.method.full.tune.lr", "cannot be true", ""),
    ("true is no rank", ("rank: 4}", "rank: true}"), "study.yaml:20 factors.method.lora.tune.method", "rank must be a number", ""),
    ("minutes are no count", ("data: {rows: 8}", "data: {rows: 1:30}"), "study.yaml:23", "whole number, not '1:30'", ""),
    ("a rate of nothing", ("tune.lr: 1e-5", "tune.lr: 0"), "study.yaml:19 factors.method.full.tune.lr", "greater than 0", ""),
    ("one candidate", ("tune.lr: 1e-5", "tune.lr: {search: [1e-3]}"), "study.yaml:19 factors.method.full.tune.lr.search", "at least 2", ""),
    ("a seed of many digits", ("[0, 1]", "[0, 99999999999999999999]"), "study.yaml:3 seeds", "less than", ""),
    ("endless epochs", ("epochs: 1", "epochs: 1e308"), "study.yaml:13 base.tune.epochs", "less than", ""),
    ("a control character", ("question: Does", "question: \0Does"), "study.yaml:1", "U+0000", "delete it"),
    ("a side with itself", ("method=lora, method=full", "method=lora, method=lora"), "study.yaml:2", "with itself", ""),
    ("a baseline named as an arm", ("  untuned:", "  method=full size=small:"), "study.yaml:25 baselines", "two arms would be named", ""),
    ("levels alike", ("large: {tune.data: {rows: 8}}", "large: {tune.data: {rows: 4}}"), "study.yaml:23", "set the same", ""),
    (
        "one factor within another",
        ("baselines:", "  more:\n    a: {tune.method.rank: 2}\n    b: {tune.method.rank: 8}\nbaselines:"),
        "factors.more",
        "which factor 'method' sets within tune.method",
        "leave it out",
    ),
    (
        "unknown format field",
        ("format: alpaca", "format: {kind: sharegpt, rolle: x}"),
        "study.yaml:6 data.rows.format.rolle",
        "is not a field here",
        "'role'",
    ),
    (
        "a home of nobody",
        ("path: rows.jsonl", "path: ~no-such-person/rows.jsonl"),
        "study.yaml:6 data.rows.path",
        "no such file: ~no-such",
        "",
    ),
    ("unknown format", ("format: alpaca", "format: alpacca"), "study.yaml:6 data.rows.format", "unknown format 'alpacca'", "'alpaca'"),
    ("no such model", ("tiny-model", "tinny-model"), "study.yaml:4 models.tiny", "there is no model 'tinny-model'", "looked for /"),
    ("no model there", ("tiny-model", "./"), "study.yaml:4 models.tiny", "'./' holds no model", "looked in /"),
    ("a model without a version", ("tiny-model", "pypi:tiny#a.gguf"), "study.yaml:4 models.tiny", "does not pin a version", "pypi:"),
    ("a model without a commit", ("tiny-model", "hf:org/tiny"), "study.yaml:4 models.tiny", "does not pin a revision", "add @COMMIT"),
    ("a model of the web", ("tiny-model", "https://a.b/c"), "study.yaml:4 models.tiny", "cannot fetch a model", "download it"),
    (
        "a name with dots",
        ("models: {tiny: tiny-model}", "models:\n  tiny: tiny-model\n  tiny2.5: none", "{tune: null}", "{tune: null, model: tiny2.5}"),
        "study.yaml:6 models.tiny2.5",
        "there is no model 'none'",
        "",
    ),
    (
        "a baseline that lacks a field",
        ("  untuned: {tune: null}", "  untuned: {tune: null}\n  bare: {tune.epochs: 2}"),
        "study.yaml:11 base.tune",
        "arm 'bare': method is required",
        "",
    ),
    ("no such baseline", ("method=lora, method=full", "method=lora, untunde"), "study.yaml:2", "no baseline", "untuned"),
]


@pytest.mark.parametrize(("changes", "where", "message", "hint"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_files_are_told_where_and_what_next(edited: Edited, changes: tuple[str, ...], where: str, message: str, hint: str) -> None:
    if not message:  # The field is overridden by every level, so nothing wrong is left.
        edited(*changes)
        return
    with pytest.raises(StudyError) as caught:
        edited(*changes)
    text = str(caught.value)
    assert text.startswith(where) or where in (caught.value.where or "")
    assert message in text
    assert hint in text
    assert "pydantic" not in text


def test_numbers_and_names_read_as_people_mean_them() -> None:
    values = parse_document("lr: 1e-5\nname: no\nlevel: {on: 1, 8: 2}\nday: 2026-01-01\nflag: true\nten: 010\ntime: 1:30\n").values
    assert values == {"lr": 1e-5, "name": "no", "level": {"on": 1, "8": 2}, "day": "2026-01-01", "flag": True, "ten": "010", "time": "1:30"}


def test_a_byte_order_mark_is_no_harm(folder: Path) -> None:
    path = folder / "study.yaml"
    before = keys(load_study(path, cores=1))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert keys(load_study(path, cores=1)) == before


def test_not_utf8_is_told_with_its_line(folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_bytes(path.read_bytes().replace(b"LoRA reach", b"LoRA r\xe9ach"))
    with pytest.raises(StudyError, match=r"study.yaml:1: not UTF-8: byte 0xe9"):
        load_study(path)


def test_a_missing_study_names_the_ones_there(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml"):
        load_study(folder / "stdy.yaml")


def test_excluded_combinations_are_no_arms(edited: Edited) -> None:
    study = edited("baselines:", "exclude: [{method: full, size: large}]\nbaselines:")
    assert "method=full size=large" not in [arm.name for arm in study.arms]
    assert study.measure.spec.contrasts[0].left == ("method=lora size=small",)  # type: ignore[attr-defined]


def test_a_wrong_check_is_told_before_anything_runs(folder: Path) -> None:
    path = folder / "questions.jsonl"
    text = path.read_text(encoding="utf-8").replace('"kind": "number", "value": 2', '"kind": "numbr", "value": 2')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="number") as caught:
        load_study(folder / "study.yaml", cores=1)
    assert str(caught.value).startswith("questions.jsonl, item 'q2', checks[0].kind: ")


def test_who_corrects_a_check_does_not_answer_again(folder: Path) -> None:
    def stages() -> ArmStages:
        return load_study(folder / "study.yaml", cores=1).arms[0].stages

    path = folder / "questions.jsonl"
    text, before = path.read_text(encoding="utf-8"), stages()
    path.write_text(text.replace('"kind": "number", "value": 2', '"kind": "number", "value": 3'), encoding="utf-8")
    corrected = stages()
    assert corrected.generate[0].key == before.generate[0].key
    assert corrected.check[0].key != before.check[0].key
    suite = corrected.generate[0].inputs["suite"]
    assert isinstance(suite, Source)
    assert suite.digest == digest_path(path)  # a run still sees that the file is another one
    path.write_text(text.replace("Say 2.", "Say two."), encoding="utf-8")
    assert stages().generate[0].key != before.generate[0].key


def test_a_raised_version_of_a_check_scores_its_suites_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_study(folder / "study.yaml", cores=1).arms[0].stages
    monkeypatch.setattr(NumberCheck, "version", NumberCheck.version + 1)
    after = load_study(folder / "study.yaml", cores=1).arms[0].stages
    assert after.check[0].key != before.check[0].key
    assert after.generate[0].key == before.generate[0].key


def test_the_version_of_a_check_inside_another_is_in_the_key_and_that_of_one_that_no_item_names_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "questions.jsonl"
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    nested = [{"kind": "any_of", "checks": [{"kind": "all_of", "checks": [{"kind": "exact", "value": "one"}]}]}]
    path.write_text("".join(json.dumps({**item, "checks": nested}) + "\n" for item in items), encoding="utf-8")
    before = load_study(folder / "study.yaml", cores=1).arms[0].stages.check[0].key
    monkeypatch.setattr(NumberCheck, "version", NumberCheck.version + 1)
    assert load_study(folder / "study.yaml", cores=1).arms[0].stages.check[0].key == before
    monkeypatch.setattr(Exact, "version", 2)
    assert load_study(folder / "study.yaml", cores=1).arms[0].stages.check[0].key != before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "there are no rows"),
        ("instruction,output\nSay one.,one\n", "not JSON"),
        ('{"instruction": "Say one.", "response": "one"}\n', "no 'output' among instruction, response"),
        ('{"conversations": [{"from": "human", "value": "Say one."}]}\n', "can be read as alpaca"),
    ],
    ids=["empty", "CSV", "a field of another name", "another format"],
)
def test_data_that_cannot_be_read_is_told_before_anything_runs(folder: Path, rows: str, message: str) -> None:
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_study(folder / "study.yaml", cores=1)
    assert message in str(caught.value)
    assert "rows.jsonl" in str(caught.value)


def test_an_unknown_template_is_told_before_anything_runs(edited: Edited) -> None:
    with pytest.raises(StudyError, match="chatlm") as caught:
        edited("  model: tiny\n", "  model: tiny\n  template: chatlm\n")
    assert "chatml" in (caught.value.hint or "")
    assert "study.yaml:11" in (caught.value.where or "")


def test_a_suite_that_nothing_can_score_is_told_before_anything_runs(folder: Path, edited: Edited) -> None:
    path = folder / "questions.jsonl"
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({**item, "checks": []}) + "\n" for item in items), encoding="utf-8")
    with pytest.raises(StudyError, match="no item of suite 'questions' can be scored: the item names no check"):
        load_study(folder / "study.yaml", cores=1)
    with pytest.raises(StudyError, match="no reference to compare with"):
        edited("max_new_tokens: 8}", "max_new_tokens: 8}\n  check: {default: chrf}")
    path.write_text("".join(json.dumps({**item, "checks": [], "reference": "one"}) + "\n" for item in items[:1]), encoding="utf-8")
    assert load_study(folder / "study.yaml", cores=1).arms


@pytest.mark.parametrize(
    ("field", "small", "large"), [("generate.max_items", "2", "3"), ("check.default", "exact", "chrf")], ids=["items", "rules"]
)
def test_arms_that_are_measured_differently_are_refused(edited: Edited, field: str, small: str, large: str) -> None:
    levels = ("small: {tune.data: {rows: 4}}", "large: {tune.data: {rows: 8}}")
    changed = [f"{level[:-1]}, {field}: {value}}}" for level, value in zip(levels, (small, large), strict=True)]
    with pytest.raises(StudyError, match=f"differ in {field}"):
        edited(levels[0], changed[0], levels[1], changed[1])


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        (
            ("baselines:", "  nucleus:\n    wide: {generate.top_p: 1.0}\n    narrow: {generate.top_p: 0.5}\nbaselines:"),
            "study.yaml:17 factors",
            "differ in generate.top_p only, which moves no number here",
        ),
        (
            ("baselines:", "  memory:\n    a: {tune.micro_batch_tokens: 32}\n    b: {tune.micro_batch_tokens: 64}\nbaselines:"),
            "study.yaml:17 factors",
            "differ in tune.micro_batch_tokens only",
        ),
        (
            ("  untuned: {tune: null}", "  untuned: {tune: null}\n  again: {tune.method: full, tune.lr: 1e-5}"),
            "study.yaml:26 baselines.again",
            "arms 'method=full size=small' and 'again' are the same work: nothing in them differs",
        ),
        (
            ("{tiny: tiny-model}", "{tiny: tiny-model, same: tiny-model}", "  untuned:", "  twin: {tune: null, model: same}\n  untuned:"),
            "study.yaml:26 baselines.untuned",
            "arms 'twin' and 'untuned' are the same work: they differ in model only",
        ),
    ],
    ids=["top_p of greedy answers", "memory", "a baseline that is an arm", "one model by two names"],
)
def test_arms_that_are_one_work_are_refused(edited: Edited, changes: tuple[str, ...], where: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        edited(*changes)
    assert caught.value.where == where
    assert message in caught.value.message
    assert "exclude" in (caught.value.hint or "")


def test_sampled_answers_may_differ_in_their_nucleus(edited: Edited) -> None:
    nucleus = "  nucleus:\n    wide: {generate.top_p: 1.0}\n    narrow: {generate.top_p: 0.5}\nbaselines:"
    assert len(edited("baselines:", nucleus, "max_new_tokens: 8", "max_new_tokens: 8, temperature: 1").arms) == 9


def test_a_data_set_of_a_hub_that_is_not_here_is_told(edited: Edited) -> None:
    with pytest.raises(DataError, match="certainly-not-here"):
        edited("path: rows.jsonl", 'path: "hf:someone/certainly-not-here@abc123"')
