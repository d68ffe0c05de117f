"""Instruction data made ready for one tokenizer: read, drop with the reason, choose, template, tokenise, prove, write.

    prepare(model_dir=model_dir, data_paths={"0": path}, portions={"0": Portion(format=Alpaca(), count=1000)}, template_name="model", ...)

Two passes. The first reads everything and keeps a hash a row (`survey`); the second parses and tokenises the chosen rows only, so 1,000
rows of a million cost little more than reading them. Chosen is from the front of the hash order for training and from its end for
validation: no size's training rows are ever another's validation rows. Memory does not grow with the tokens.

Writes `train.arrow` and `validation.arrow` (campana.prepared/1) and `data_report.json` (campana.data_report/1).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from campana.data.encoding import TOO_LONG, DataFiles, Encoder, Progress, Spool
from campana.data.format import Format
from campana.data.prepared import RowWriter, arrow_schema
from campana.data.statistics import Statistics
from campana.data.survey import Survey, survey
from campana.data.templates import ChatTemplate, load_template
from campana.errors import DataError

REPORT_SCHEMA = "campana.data_report/1"
UNKNOWN, USABLE, DROPPED = 0, 1, 2


class PortionLike(Protocol):
    """How much of one data set is used: so many rows, a share of them, or all."""

    @property
    def format(self) -> Format:
        """How its rows read."""
        ...

    @property
    def count(self) -> int | None:
        """How many rows, or None."""
        ...

    @property
    def fraction(self) -> float | None:
        """Which share of the rows; both None: all."""
        ...


@dataclass
class _DataSet:
    """One data set on its way."""

    name: str
    path: Path
    portion: PortionLike
    survey: Survey
    num_validation: int
    state: npt.NDArray[np.int8]
    """By place in the hash order: not encoded yet, usable, or dropped."""
    spools: list[Spool] = field(default_factory=list)
    train: Statistics = field(default_factory=Statistics)
    validation: Statistics = field(default_factory=Statistics)

    def choose(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Places in the hash order of the training and of the validation rows, as far as is known. Raises DataError: too few."""
        left = np.flatnonzero(self.state != DROPPED)
        split = len(left) - self.num_validation
        if split < 1:
            raise self._too_few(f"{self.num_validation} validation rows and at least one of training were asked for", len(left), 0)
        train, validation = left[:split], left[split:]
        if self.portion.count is not None:
            if self.portion.count > split:
                raise self._too_few(f"{self.portion.count:,} training rows were asked for", split, self.num_validation)
            return train[: self.portion.count], validation
        share = 1.0 if self.portion.fraction is None else self.portion.fraction
        train = train[train < max(1, math.floor(share * len(self.state)))]
        return train, validation

    def _too_few(self, asked: str, usable: int, num_held: int) -> DataError:
        held = f" beside {num_held} held out for validation" if num_held and usable < len(self.state) else ""
        return DataError(
            f"{asked}, but the data set has {usable:,} usable ones{held} (of {self.survey.num_read:,} read)",
            where=f"data set {self.name}",
            hint=f"{_advice(self.survey)}; dropped: {_reasons(self.survey)}",
        )


def _advice(found: Survey) -> str:
    """What helps: the rows may be there, and too long."""
    commonest = next(iter(found.drops.as_dict()), None)
    return "raise tune: {max_length: ...}" if commonest == TOO_LONG else "ask for fewer rows, or all"


def _reasons(found: Survey) -> str:
    return ", ".join(f"{reason} {value['count']:,}" for reason, value in found.drops.as_dict().items()) or "none was dropped"


def prepare(
    *,
    model_dir: Path,
    data_paths: Mapping[str, Path],
    portions: Mapping[str, PortionLike],
    template_name: str,
    max_length: int,
    num_validation: int,
    subset_seed: int,
    out_dir: Path,
    progress: Progress,
) -> dict[str, Any]:
    """See the module. Returns the meter: rows and tokens.

    Validation rows are shared evenly between the data sets. A fraction is of the readable rows that are no duplicates. Raises DataError:
    too few rows, no template, or a proof that fails (prompt tokens of training and generation differ; a row without a learned token; an
    answer that does not end with a stop token).
    """
    if set(data_paths) != set(portions) or not portions:
        raise DataError(f"portions of {sorted(portions)} for the data of {sorted(data_paths)}")
    template = load_template(template_name, _tokenizer(model_dir))
    names = sorted(portions)

    def on_rows(name: str, rows: int) -> None:
        progress(names.index(name), len(names), "data sets read", rows=rows)

    surveys = survey(data_paths, {name: portions[name].format for name in names}, subset_seed, on_rows)
    encoder = Encoder(template, max_length)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".spool-") as folder:
        sets = [
            _DataSet(
                name,
                data_paths[name],
                portions[name],
                surveys[name],
                num_validation // len(names) + (number < num_validation % len(names)),
                np.zeros(len(surveys[name].ordinals), np.int8),
            )
            for number, name in enumerate(names)
        ]
        for data in sets:
            data.choose()
        for data in sets:
            _encode_chosen(data, encoder, Path(folder), progress)
        schema = arrow_schema()
        with RowWriter(out_dir / "train.arrow", schema) as train, RowWriter(out_dir / "validation.arrow", schema) as validation:
            for data in sets:
                _write_chosen(data, train, validation)
    report = _report(sets, template, encoder, max_length, subset_seed)
    (out_dir / "data_report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return report["totals"]


def _tokenizer(model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"no tokenizer can be read: {error}", where=str(model_dir.name), hint="it needs a tokenizer.json") from error


def _encode_chosen(data: _DataSet, encoder: Encoder, folder: Path, progress: Progress) -> None:
    """Encode until enough of the chosen rows are known to be usable. One round does unless many are too long."""
    while True:
        train, validation = data.choose()
        chosen = np.concatenate([train, validation])
        unknown = chosen[data.state[chosen] == UNKNOWN]
        if not len(unknown):
            return
        spare = len(unknown) // 50 + 8  # A few more, so that a dropped row seldom needs another pass over the file.
        more = np.flatnonzero(data.state == UNKNOWN)
        more = np.setdiff1d(more, unknown, assume_unique=True)
        if data.portion.count is not None:
            more = np.union1d(more[:spare], more[len(more) - min(spare, len(more)) :])
            unknown = np.sort(np.concatenate([unknown, more]))
        spool = Spool(Path(tempfile.mkdtemp(dir=folder)) / "rows.arrow")
        data.spools.append(spool)
        ordinals = data.survey.ordinals[unknown]
        files = DataFiles(data.name, data.path, data.portion.format)
        usable = encoder.encode(files, ordinals, data.survey, spool, progress)
        data.state[unknown] = np.where(usable, USABLE, DROPPED)
        spool.places = unknown


def _write_chosen(data: _DataSet, train: RowWriter, validation: RowWriter) -> None:
    for_train, for_validation = data.choose()
    if not len(for_train):
        hint = f"{_advice(data.survey)}; dropped: {_reasons(data.survey)}"
        raise DataError("no row can be used", where=f"data set {data.name}", hint=hint)
    role = np.zeros(len(data.state), np.int8)
    role[for_train] = 1
    role[for_validation] = 2
    for spool in data.spools:
        for place, batch in spool.batches():
            for wanted, writer, statistics in ((1, train, data.train), (2, validation, data.validation)):
                chosen = role[place] == wanted
                if chosen.any():
                    rows = batch if chosen.all() else batch.filter(chosen)
                    statistics.add(rows)
                    writer.write_batch(rows)


def _report(sets: list[_DataSet], template: ChatTemplate, encoder: Encoder, max_length: int, subset_seed: int) -> dict[str, Any]:
    data_sets = {
        data.name: {
            "format": data.portion.format.identity(),
            "read": data.survey.num_read,
            "kept": int((data.state != DROPPED).sum()),
            "used": data.train.num_rows,
            "validation": data.validation.num_rows,
            "encoded": int((data.state != UNKNOWN).sum()),
            "shortened": encoder.shortened.get(data.name, 0),
            "dropped": data.survey.drops.as_dict(),
            "tokens": {"total": data.train.num_tokens, "supervised": data.train.num_supervised},
            "lengths": data.train.lengths(),
            "language": encoder.languages[data.name].guess(),
        }
        for data in sets
    }
    totals = {
        "rows_read": sum(data.survey.num_read for data in sets),
        "train_rows": sum(data.train.num_rows for data in sets),
        "validation_rows": sum(data.validation.num_rows for data in sets),
        "train_tokens": sum(data.train.num_tokens for data in sets),
        "supervised_tokens": sum(data.train.num_supervised for data in sets),
        "validation_tokens": sum(data.validation.num_tokens for data in sets),
    }
    return {
        "schema": REPORT_SCHEMA,
        "template": template.describe(),
        "max_length": max_length,
        "subset_seed": subset_seed,
        "data_sets": data_sets,
        "totals": totals,
        "proofs": encoder.proofs(),
    }
