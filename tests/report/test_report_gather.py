"""What `gather` says of a study: whole, half-way, and twice."""

import json
from pathlib import Path

import jsonschema
import pytest

from campana.core.store import Store
from campana.errors import StoreError
from campana.outcome import gather
from campana.outcome.warnings import warnings, warnings_of_this_run
from campana.report import REPORT_SCHEMA, without_measured
from campana.study import Study


def test_the_report_is_json_and_follows_its_schema(report: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(REPORT_SCHEMA)
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), REPORT_SCHEMA)


def test_a_half_finished_study_shows_what_is_built_and_lists_the_rest(study: Study, report: dict, fill, tmp_path: Path) -> None:
    whole = report
    for until in ("model", "prepare", "select", "tune", "generate", "check"):
        store = fill(study, tmp_path / "half", until=until)
        report = gather(study, store)
        jsonschema.validate(report, REPORT_SCHEMA)
        built = {row["key"] for row in report["provenance"] if row["built"]}
        missing = {row["key"] for row in report["missing"]}
        assert built | missing == {row["key"] for row in report["provenance"]}
        assert not built & missing
        assert all(store.has(key) for key in built)
        assert not any(store.has(key) for key in missing)
        assert report["measure"] is None
        assert [arm["score"] for arm in report["arms"]] == [arm["score"] if until == "check" else None for arm in whole["arms"]]
        assert set(report["pareto"]["scores"].values()) == {None}
        assert report["answer"]["sentence"] == f"No answer yet: {len(built)} of {len(built | missing)} stages are built."
        assert bool(report["items"]) == (until in ("generate", "check"))
        scores = [given["score"] for item in report["items"] for answers in item["answers"].values() for given in answers]
        assert any(score is not None for score in scores) == (until == "check")


def test_a_failed_arm_hides_no_other_s_scores(study: Study, report: dict, fill, tmp_path: Path) -> None:
    store = fill(study, tmp_path / "half", until="check")
    failed = study.arms[0]
    store.remove(failed.stages.check[study.file.seeds[0]].key)
    found = {arm["name"]: arm["score"] for arm in gather(study, store)["arms"]}
    assert found == {arm["name"]: None if arm["name"] == failed.name else arm["score"] for arm in report["arms"]}


def test_an_empty_store_says_that_nothing_is_built(study: Study, tmp_path: Path) -> None:
    report = gather(study, Store(tmp_path / "empty"))
    jsonschema.validate(report, REPORT_SCHEMA)
    assert report["costs"]["total"]["measured"]["seconds"] == 0
    assert len(report["missing"]) == len(report["provenance"])


def test_two_runs_agree_byte_for_byte_without_what_was_measured(study: Study, report: dict, fill, tmp_path: Path) -> None:
    reports = [report, gather(study, fill(study, tmp_path / "slow" / "store", clock=3.0))]
    texts = [json.dumps(without_measured(report)) for report in reports]
    assert texts[0] == texts[1]
    assert json.dumps(reports[0]) != json.dumps(reports[1])


def test_no_figure_of_a_machine_is_outside_of_measured(report: dict, store: Store) -> None:
    text = json.dumps(without_measured(report))
    for word in ('"seconds"', "memory_bytes", '"money"', "per_second", '"created"', "host", str(store.root.parent.parent)):
        assert word not in text


def test_the_costs_of_the_arms_add_up_to_the_study(report: dict) -> None:
    costs = report["costs"]
    for name in ("tokens", "supervised_tokens", "flops"):
        assert sum(arm["total"][name] for arm in costs["arms"].values()) == pytest.approx(costs["total"][name])
    for name in ("seconds", "failed_seconds", "money"):
        assert sum(arm["total"]["measured"][name] for arm in costs["arms"].values()) == pytest.approx(costs["total"]["measured"][name])


def test_trials_and_failed_tries_are_charged_to_their_arm(study: Study, store: Store, report: dict) -> None:
    arm = study.arms[0]
    charged = report["costs"]["arms"][arm.name]
    trials = sum(store.manifest(trial.key).seconds for trial in arm.stages.trials)
    assert charged["parts"]["search"]["measured"]["seconds"] == pytest.approx(trials + store.manifest(arm.stages.select.key).seconds)
    assert charged["parts"]["tuning"]["measured"]["failed_seconds"] == pytest.approx(11.0)
    runs = sum(store.manifest(stage.key).seconds for stage in arm.stages.tune.values())
    assert charged["parts"]["tuning"]["measured"]["seconds"] == pytest.approx(runs + 11.0)


def test_shared_stages_are_divided_among_the_arms_that_use_them(study: Study, store: Store, report: dict) -> None:
    seconds = store.manifest(study.arms[0].stages.model.key).seconds
    for arm in report["costs"]["arms"].values():
        assert arm["parts"]["model"]["measured"]["seconds"] == pytest.approx(seconds / len(study.arms))
    assert "tuning" not in report["costs"]["arms"]["untuned"]["parts"]


def test_the_answer_has_the_interval_the_cost_and_what_would_resolve_it(report: dict) -> None:
    primary = next(contrast for contrast in report["measure"]["contrasts"] if contrast["primary"])
    sentence = report["answer"]["sentence"]
    assert f"{primary['difference']['low']:.3f} to {primary['difference']['high']:.3f}" in sentence
    assert "x the tuning FLOPs" in sentence
    assert "x the tuning time" in report["answer"]["measured"]["sentence"]
    assert len(report["answer"]["details"]) == len(report["measure"]["contrasts"])


def test_only_declared_fields_differ(report: dict) -> None:
    fairness = report["fairness"]
    assert fairness["undeclared"] == []
    assert {difference["factor"] for difference in fairness["differences"]} == {"method", "size"}
    assert fairness["same"]["tune.epochs"] == 3
    assert len(set(fairness["inputs"]["suite"].values())) == 1


def test_seeds_that_share_an_answer_are_one_entry(report: dict) -> None:
    for item in report["items"]:
        assert [given["seeds"] for given in item["answers"]["untuned"]] == [[0, 1]]
        assert [given["seeds"] for given in item["answers"]["method=lora size=s"]] == [[0], [1]]


def test_tokens_of_curves_add_up(report: dict) -> None:
    curve = report["curves"][0]
    assert curve["train"]["tokens"][-1] == 512 * curve["num_steps"]
    assert curve["validation"]["tokens"][0] == 0


def test_the_edge_of_the_grid_and_cut_and_unscored_answers_are_warned_of(report: dict) -> None:
    kinds = [warning["kind"] for warning in report["warnings"]]
    assert kinds == ["learning_rate", "dropped", "cut", "unscored"]
    assert report["warnings"][2]["arms"] == ["untuned"]


def test_dropped_rows_are_warned_of(report: dict) -> None:
    (warning,) = [each for each in report["warnings"] if each["kind"] == "dropped"]
    assert "empty answer" in warning["text"]
    (entry, *_) = report["data"]
    (name,) = entry["report"]["data_sets"]
    fewer = json.loads(json.dumps(entry))
    fewer["report"]["data_sets"][name]["kept"] -= 1
    told = warnings([], [0, 1], 0, report["fairness"], [entry, fewer])
    assert [each["kind"] for each in told if "learn from" in each["text"]] == ["other_rows"]
    fewer["report"]["data_sets"][name]["used"] -= 1  # of another size: fewer rows were looked at, so fewer were lost
    assert "other_rows" not in [each["kind"] for each in warnings([], [0, 1], 0, report["fairness"], [entry, fewer])]


def test_tries_that_came_to_nothing_are_warned_of_beside_what_any_run_has(report: dict) -> None:
    costs = json.loads(json.dumps(report["costs"]))
    for arm in costs["arms"].values():
        arm["making"]["measured"] |= {"seconds": 100.0, "failed_seconds": 4.0}
    assert warnings_of_this_run(report["arms"], costs) == []
    name = report["arms"][0]["name"]
    costs["arms"][name]["making"]["measured"]["failed_seconds"] = 30.0
    (warning,) = warnings_of_this_run(report["arms"], costs)
    assert warning["arms"] == [name]
    assert "30.0 s of 1 min 40 s" in warning["text"]


def test_one_seed_is_warned_of(make, tmp_path: Path) -> None:
    study = make(tmp_path / "one", per_category=1, seeds=(7,))
    report = gather(study, Store(tmp_path / "store"))
    assert "one_seed" in [warning["kind"] for warning in report["warnings"]]


def test_rates_that_were_given_and_not_searched_are_warned_of(report: dict) -> None:
    searched = report["arms"]
    assert "given_rate" not in [warning["kind"] for warning in report["warnings"]]
    given = [
        arm if arm["learning_rate"] is None else {**arm, "learning_rate": {**arm["learning_rate"], "searched": False}} for arm in searched
    ]
    (warning,) = [each for each in warnings(given, [0, 1], 0, report["fairness"], []) if each["kind"] == "given_rate"]
    assert warning["arms"] == [arm["name"] for arm in searched if arm["learning_rate"] is not None]


def test_a_damaged_file_is_a_clear_error(study: Study, fill, tmp_path: Path) -> None:
    store = fill(study, tmp_path / "store", until="prepare")
    path = store.path(study.arms[0].stages.prepare.key) / "data_report.json"
    path.chmod(0o644)
    path.write_text("{")
    with pytest.raises(StoreError, match=r"data_report\.json"):
        gather(study, store)


def test_the_schema_is_closed(report: dict) -> None:
    report["arms"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(report, REPORT_SCHEMA)
