"""The sections that back the answer: costs, data, fairness, prompts, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from campana.report import quantity as q
from campana.report.ledger import PARTS, flops_spent, money_spent, time_spent, tokens_spent
from campana.report.markup import esc, fig, note, section, table
from campana.report.results import Looks, Report, arm_label, plural

PART_NAMES = {
    "model": "model",
    "data": "data",
    "search": "search",
    "tuning": "tuning",
    "generation": "answering",
    "checking": "checking",
    "measuring": "measuring",
}
SCORE_FILTERS = {"": "any", "low": "below 0.5", "high": "0.5 and above", "differ": "arms differ", "unscored": "unscored", "cut": "cut"}


def costs(report: Report, looks: Looks) -> str:
    """The ledger: time of each part per arm, then counted work and money."""
    charged = report["costs"]
    used = [part for part in PARTS if any(part in charged["arms"][arm["name"]]["parts"] for arm in report["arms"])]
    keys = {(arm, line["part"]): line["key"] for line in reversed(charged["lines"]) for arm in line["arms"]}
    currency = charged["currency"]
    head = ["arm", *(PART_NAMES[part] for part in used), "all", *([esc(currency)] if currency else []), "failed tries"]
    rows: list[list[str]] = []
    work: list[list[str]] = []
    with_energy = any(charged["arms"][arm["name"]]["making"]["measured"]["energy_joules"] is not None for arm in report["arms"])
    for arm in report["arms"]:
        own = charged["arms"][arm["name"]]
        total = own["total"]["measured"]
        cells = []
        for part in used:
            amount = own["parts"].get(part)
            text = q.NONE if amount is None else time_spent(amount)
            cells.append(fig(text, keys.get((arm["name"], part)), f"report.json · costs.arms.{arm['name']}.parts.{part}"))
        money = [money_spent(own["total"], None)] if currency else []
        failed = f"{total['num_failed']} ({q.duration(total['failed_seconds'])})" if total["num_failed"] else q.NONE
        rows.append([arm_label(arm, looks), *cells, f"<strong>{esc(time_spent(own['total']))}</strong>", *map(esc, money), esc(failed)])
        key = keys.get((arm["name"], "tuning"))
        path = f"report.json · costs.arms.{arm['name']}"
        values = [
            tokens_spent(own["making"], "tokens"),
            tokens_spent(own["making"], "supervised_tokens"),
            flops_spent(own["making"]),
            flops_spent(own["total"]),
            q.rate(own["measured"]["tokens_per_second"]),
            q.size(own["measured"]["peak_memory_bytes"]),
            *([q.energy(own["making"]["measured"]["energy_joules"])] if with_energy else []),
        ]
        work.append([arm_label(arm, looks), *(fig(value, key, path) for value in values)])
    total = charged["total"]["measured"]
    sums: list[str] = []
    for part in used:
        amounts = [charged["arms"][arm["name"]]["parts"].get(part) for arm in report["arms"]]
        seconds = sum(amount["measured"]["seconds"] for amount in amounts if amount is not None)
        complete = all(amount["complete"] for amount in amounts if amount is not None)
        sums.append(esc(q.spent(q.duration(seconds), seconds, complete)))
    whole = charged["total"]
    foot = ["study", *sums, f"<strong>{esc(time_spent(whole))}</strong>", *([esc(money_spent(whole, None))] if currency else [])]
    foot.append(esc(f"{total['num_failed']} ({q.duration(total['failed_seconds'])})" if total["num_failed"] else q.NONE))
    price = f" Money is machine time at {report['study']['prices']['machine_hour']:g} {esc(currency)} an hour." if currency else ""
    told = note(
        f"Machine time, over {plural(len(report['study']['seeds']), 'seed')}. What several arms use is divided among "
        "them, so the arms add up to the study. Trials of the learning-rate search and failed or killed tries are charged to the arm "
        "they were for." + price
    )
    columns = [
        "arm",
        "tokens",
        "supervised",
        "tuning FLOPs",
        "all FLOPs",
        "supervised/s",
        "peak memory",
        *(["energy"] if with_energy else []),
    ]
    counted = table(columns, work, css="work")
    work_title = "<h3>Work of tuning, search included</h3>"
    return section("costs", "Costs", table(head, rows, css="costs", foot=foot), told, work_title, counted, _predicted(report))


def _predicted(report: Report) -> str:
    """Predicted over actual by kind of stage; nothing where nothing was predicted."""
    forecast = report["measured"].get("forecast")
    if forecast is None:
        return ""
    quantities = ("seconds", "memory_bytes", "disk_bytes")
    rows: list[list[str]] = []
    for kind, found in forecast["kinds"].items():
        ratios = [esc(q.ratio(found[name][which])) for name in quantities for which in ("median", "worst")]
        rows.append([esc(kind), esc(q.count(found["num_stages"])), *ratios])
    head = ["kind of stage", "stages", "time, median", "worst", "memory, median", "worst", "disk, median", "worst"]
    told = note("Predicted before the run, over what it took: 1.10x is a prediction that was 10% too high. Each stage is in report.json.")
    return "<h3>Predicted and actual</h3>" + table(head, rows) + told


def data(report: Report, looks: Looks) -> str:
    """Per data set: rows read, dropped with the reason and an example, used; tokens and lengths."""
    shorts = {arm["name"]: arm for arm in report["arms"]}
    parts: list[str] = []
    for entry in report["data"]:
        arms = " ".join(arm_label(shorts[name], looks) for name in entry["arms"])
        rows: list[list[str]] = []
        dropped: list[str] = []
        for name, found in data_sets(entry):
            tokens, lengths = found["tokens"], found["lengths"]
            values = [
                q.count(found["read"]),
                q.count(found["kept"]),
                q.count(found["used"]),
                q.count(found["validation"]),
                q.count(tokens["total"]),
                q.count(tokens["supervised"]),
                q.count(lengths["median"]),
                q.count(lengths["max"]),
            ]
            rows.append([esc(name), *(fig(value, entry["key"], f"data_report.json · {name}") for value in values)])
            for reason, drop in found["dropped"].items():
                count = fig(q.count(drop["count"]), entry["key"], f"data_report.json · {name}.dropped")
                dropped.append(f"<li>{esc(name)}: {count} × {esc(reason)}{_example(name, drop.get('example'))}</li>")
        head = ["data set", "read", "kept", "trained on", "held out", "tokens", "supervised", "median length", "longest"]
        losses = (
            f"<details><summary>Rows that were dropped</summary><ul>{''.join(dropped)}</ul></details>"
            if dropped
            else note("No row was dropped.")
        )
        parts.append(f'<h3 class="arms">{arms}</h3>{table(head, rows)}{losses}')
    return section("data", "Data", *parts)


def data_sets(entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The study's name and the counts of each data set of a data report."""
    return [(entry["names"].get(name, name), found) for name, found in entry["report"]["data_sets"].items()]


def _example(name: str, example: Mapping[str, str] | None) -> str:
    """The first such row: where in the data set, what was wrong, how it begins."""
    if example is None:
        return ""
    place = f"{name}:{example['where'].rpartition(':')[2]}"
    told = ", ".join(esc(text.strip()) for text in (place, example["detail"]) if text.strip())
    text = example["excerpt"]
    return f" ({told})" + (f" <code>{esc(text if len(text) <= 300 else text[:299] + '…')}</code>" if text else "")


def fairness(report: Report, looks: Looks) -> str:
    """What differs between arms, who declared it, and all that is the same."""
    found = report["fairness"]
    arms = [arm for arm in report["arms"] if not arm["baseline"]]
    rows = [
        [
            f"<code>{esc(difference['path'])}</code>",
            esc(difference["factor"] or "no factor"),
            *(
                f"<code>{esc(_short(difference['values'][arm['name']]))}</code>" if arm["name"] in difference["values"] else q.NONE
                for arm in arms
            ),
        ]
        for difference in found["differences"]
    ]
    if found["undeclared"]:
        verdict = f"<p class=bad>Not fair: {esc(', '.join(found['undeclared']))} differ and no factor declares them.</p>"
    else:
        verdict = (
            f"<p>All {found['num_fields']} fields of the arms' recipes were compared. "
            f"{len(found['differences'])} differ, each declared by a factor; "
            f"the other {len(found['same'])} are the same in every arm.</p>"
        )
    parts = [verdict]
    if rows:
        parts.append(table(["field", "factor", *(arm_label(arm, looks) for arm in arms)], rows, css="fairness", text_columns=99))
    inputs = [[esc(name), *_inputs(given)] for name, given in found["inputs"].items()]
    parts.append(table(["input", "arms", "content"], inputs, css="inputs", text_columns=3))
    if found["baselines"]:
        listed = "".join(
            f"<li><strong>{esc(name)}</strong>: {esc(', '.join(paths) or 'nothing')}</li>" for name, paths in found["baselines"].items()
        )
        parts.append(f"<details><summary>Where the baselines differ from the first arm</summary><ul>{listed}</ul></details>")
    same = "".join(f"<tr><td><code>{esc(path)}</code><td><code>{esc(_short(value))}</code>" for path, value in found["same"].items())
    parts.append(
        f"<details><summary>The {len(found['same'])} fields that all arms share</summary><table class=plain>{same}</table></details>"
    )
    return section("fairness", "Fairness", *parts)


def _inputs(given: Mapping[str, str]) -> list[str]:
    """How many arms share each content of one input."""
    contents: dict[str, int] = {}
    for identity in given.values():
        contents[identity] = contents.get(identity, 0) + 1
    told = f"the same for all {len(given)}" if len(contents) == 1 else " + ".join(str(number) for number in contents.values()) + " arms"
    return [told, " ".join(f"<code>{esc(identity.removeprefix('sha256:')[:12])}</code>" for identity in contents)]


def _short(value: object) -> str:
    text = _written(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_written(each) for each in cast("list[object]", value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def prompts(report: Report) -> str:
    """The place of the prompts and answers; the page's script fills it."""
    if not report["items"]:
        return ""
    categories = "".join(f"<option>{esc(name)}</option>" for name in dict.fromkeys(item["category"] for item in report["items"]))
    arms = "".join(f'<option value="{esc(arm["name"])}">{esc(arm["short"])}</option>' for arm in report["arms"])
    scores = "".join(f'<option value="{value}">{said}</option>' for value, said in SCORE_FILTERS.items())
    controls = (
        '<form class="controls" id="controls">'
        '<label class="grow">Search<input type="search" name="words" placeholder="prompts, references, answers"></label>'
        f'<label>Category<select name="category"><option value="">all</option>{categories}</select></label>'
        f'<label>Arm<select name="arm"><option value="">all</option>{arms}</select></label>'
        f'<label>Score<select name="score">{scores}</select></label>'
        '<output name="found"></output></form>'
    )
    plain = '<p class="note screen-off">The prompts and answers are in the page on screen and in report.json.</p>'
    return section("prompts", "Prompts and answers", controls, '<div id="cards"></div><div id="more"></div>', plain)


def provenance(report: Report) -> str:
    """One row a stage: what it gave, its key, and the command that shows its recipe and repeats it."""
    rows: list[str] = []
    for row in report["provenance"]:
        state = "" if row["built"] else ' <span class="tag warn">missing</span>'
        rows.append(
            f'<tr id="{esc(row["id"])}"><th scope="row">{esc(row["label"] or row["kind"])}{state}<td>{esc(row["figures"])}'
            f"<td><code>{esc(row['key'][:12])}</code><td><code>{esc(row['measured']['command'])}</code>"
        )
    study = report["study"]
    path = report["measured"]["study_path"]
    told = (
        "Every figure on this page links to the stage that it comes from. "
        f"<code>campana run {esc(path)} --store elsewhere</code> builds all of them again; "
        f"<code>campana verify</code> checks the stored files. Study file <code>{esc(study['digest'][:19])}</code>."
    )
    body = "".join(rows)
    head = "<thead><tr><th>stage<th>gives<th>key<th>command</thead>"
    listed = f'<div class="scroll"><table class="provenance">{head}<tbody>{body}</tbody></table></div>'
    return section("provenance", "Provenance", note(told), listed, _machines(report))


def _machines(report: Report) -> str:
    machines = report["measured"]["machines"]
    if not machines:
        return ""
    listed = [", ".join(f"{name} {value}" for name, value in one.items()) if isinstance(one, Mapping) else str(one) for one in machines]
    return note(f"Built on: {esc('; '.join(listed))}.")
