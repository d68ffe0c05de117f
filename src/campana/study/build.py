"""Building a study: file -> arms -> stages -> one `measure` stage. Errors say where in the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from campana.core.digest import digest_path
from campana.core.spec import Resources, Source, Stage
from campana.errors import StudyError
from campana.stages.measure import ArmScores, Measure
from campana.study.arms import Draft, contrast_check, draft_arms, flatten
from campana.study.complaints import study_error
from campana.study.contrasts import contrasts
from campana.study.readers import ReaderRecipe
from campana.study.reading import Document, Place, read_document
from campana.study.schema import ArmRecipe, Search, StudyFile
from campana.study.wiring import ArmStages, Digest, Wiring


@dataclass(frozen=True)
class Arm:
    """One way to tune (or not to)."""

    name: str
    levels: Mapping[str, str]
    """Factor -> level; empty for a baseline."""
    baseline: bool
    recipe: Mapping[str, Any]
    """Resolved recipe, flat: `tune.method.rank` -> 16."""
    stages: ArmStages


@dataclass(frozen=True)
class Study:
    """A study, resolved: everything it would run is known."""

    name: str
    path: Path | None
    file: StudyFile
    arms: tuple[Arm, ...]
    measure: Stage

    @property
    def question(self) -> str:
        """What the study asks."""
        return self.file.question

    @property
    def targets(self) -> tuple[Stage, ...]:
        """What must be built for the answer and for all that its report shows: a stage that was set aside is built again."""
        kept = (stage for arm in self.arms for stage in (*arm.stages.tuning, *arm.stages.generate.values(), *arm.stages.check.values()))
        return (self.measure, *kept)


def load_study(path: Path, *, digest: Digest = digest_path, cores: int | None = None) -> Study:
    """Read and resolve a study file. Raises StudyError with file, line and a hint."""
    document = read_document(path)
    try:
        file = StudyFile.model_validate(document.values)
    except ValidationError as error:
        raise study_error(error, StudyFile, document.values, document.where) from None
    return _build(file, document, path.resolve().parent, path.stem, path, digest, cores)


def build_study(
    file: StudyFile, *, name: str, base_dir: Path | None = None, digest: Digest = digest_path, cores: int | None = None
) -> Study:
    """Resolve a study made in Python; paths are relative to `base_dir`. The keys are those of the same study in YAML."""
    values = file.model_dump(mode="json", exclude_unset=True)
    return _build(file, Document(values, {}), base_dir or Path(), name, None, digest, cores)


def _build(file: StudyFile, document: Document, base_dir: Path, name: str, path: Path | None, digest: Digest, cores: int | None) -> Study:
    drafts = draft_arms(file, document)
    wiring = Wiring(file, base_dir, digest, cores or os.cpu_count() or 1)
    recipes = _recipes(drafts, document)
    _check_budgets(recipes, document)
    arms: list[Arm] = []
    for draft in drafts:
        recipe = recipes[draft.name]
        try:
            stages = wiring.stages(draft.name, recipe)
        except StudyError as error:
            raise _placed(error, draft, document) from None
        flat = flatten(recipe.model_dump(mode="json"))
        arms.append(Arm(draft.name, draft.levels, draft.baseline, flat, stages))
    declared = {factor: {p for fields in levels.values() for p in fields} for factor, levels in file.factors.items()}
    contrast_check(
        ((arm.name, arm.levels, arm.recipe) for arm in arms if not arm.baseline)
        if any(not arm.baseline for arm in arms)
        else [(arms[0].name, arms[0].levels, arms[0].recipe)],
        declared,
    )
    _check_same_measurement(recipes, document)
    _check_different_work(arms, document)
    return Study(name, path, file, tuple(arms), _measure(file, drafts, arms, document))


def _check_same_measurement(recipes: Mapping[str, ArmRecipe | ReaderRecipe], document: Document) -> None:
    """Arms are compared item by item: all must answer the same items and be scored by the same rules."""
    alike = [recipe.measured_alike() for recipe in recipes.values()]
    for field in alike[0]:
        values = {each[field] for each in alike}
        if len(values) > 1:
            section, name = field.split(".")
            raise StudyError(
                f"the arms differ in {field} ({', '.join(sorted(values))}): they cannot be compared item by item",
                where=document.where(("base", section)),
                hint=f"give every arm the same {section}.{name}",
            )


def _check_different_work(arms: Sequence[Arm], document: Document) -> None:
    """Two arms that are one work would be one run compared with itself, and always found equivalent."""
    seen: dict[tuple[str, ...], Arm] = {}
    for arm in arms:
        other = seen.setdefault(tuple(stage.key for stage in arm.stages.check.values()), arm)
        if other is arm:
            continue
        paths = sorted(path for path in {*other.recipe, *arm.recipe} if other.recipe.get(path) != arm.recipe.get(path))
        told = f"they differ in {', '.join(paths)} only, which moves no number here" if paths else "nothing in them differs"
        raise StudyError(
            f"arms {other.name!r} and {arm.name!r} are the same work: {told}",
            where=document.where(("baselines", arm.name) if arm.baseline else ("factors",)),
            hint="leave one of them out (a level, a baseline, or a combination under `exclude`), or let them differ in what moves numbers",
        )


def _recipes(drafts: Sequence[Draft], document: Document) -> dict[str, ArmRecipe | ReaderRecipe]:
    """Each arm's recipe: of readers where the arms have `read`."""
    reads = {draft.name: _reads(draft) for draft in drafts}
    if len(set(reads.values())) > 1:
        names = [next(name for name, found in reads.items() if found is wanted) for wanted in (True, False)]
        raise StudyError(
            f"arm {names[0]!r} is a reader and arm {names[1]!r} is not: they cannot be compared",
            where=document.where(("base",)),
            hint="give `read` to every arm, under base, or to none",
        )
    return {draft.name: _recipe(draft, document) for draft in drafts}


def _reads(draft: Draft) -> bool:
    return draft.values.get("read") is not None


def _recipe(draft: Draft, document: Document) -> ArmRecipe | ReaderRecipe:
    kind: type[ArmRecipe | ReaderRecipe] = ReaderRecipe if _reads(draft) else ArmRecipe
    try:
        return kind.model_validate(draft.values)
    except ValidationError as error:
        told = study_error(error, kind, draft.values, lambda place: document.where(_origin(draft, place)))
        raise StudyError(f"arm {draft.name!r}: {told.message}", where=told.where, hint=told.hint) from None


def _origin(draft: Draft, place: Place) -> Place:
    """Where the file sets a place of an arm's recipe: in a level, in a baseline, or in base."""
    steps = tuple(str(step) for step in place)
    for end in range(len(steps), 0, -1):
        if steps[:end] in draft.origins:
            return (*draft.origins[steps[:end]], *place[end:])
    return ("base", *place)


def _placed(error: StudyError, draft: Draft, document: Document) -> StudyError:
    """The same error with its place in the file, where it names a place of the recipe or of the file."""
    if error.where is None:
        return error
    section, _, rest = error.where.partition(".")
    if section in ("models", "data", "suites"):
        named = [name for name in document.values.get(section, {}) if f"{rest}.".startswith(f"{name}.")]
        name = max(named, key=len, default=rest)  # A name may hold dots: qwen2.5.
        place: Place = (section, name, *filter(None, rest.removeprefix(name).split(".")))
    elif ":" in error.where:
        return error
    else:
        place = _origin(draft, tuple(error.where.split(".")))
    return StudyError(error.message, where=document.where(place), hint=error.hint)


def _check_budgets(recipes: Mapping[str, ArmRecipe | ReaderRecipe], document: Document) -> None:
    """Every arm that is tuned gets the same search: as many candidates and the same budget."""
    searches = {name: recipe.tune.lr for name, recipe in recipes.items() if isinstance(recipe, ArmRecipe) and recipe.tune is not None}
    kinds = {(len(lr.search), lr.budget) if isinstance(lr, Search) else None for lr in searches.values()}
    if len(kinds) > 1:
        told = "; ".join(
            f"{n}: {len(lr.search)} x {lr.budget:g}" if isinstance(lr, Search) else f"{n}: fixed" for n, lr in searches.items()
        )
        raise StudyError(
            f"the arms do not get the same learning-rate search ({told})",
            where=document.where(("factors",)),
            hint="give every arm as many candidates and the same budget, or fix every arm's rate",
        )


def _measure(file: StudyFile, drafts: list[Draft], arms: list[Arm], document: Document) -> Stage:
    inputs: dict[str, Stage | Source] = {}
    scores: dict[str, ArmScores] = {}
    for arm in arms:
        names: list[str] = []
        first: dict[str, str] = {}
        for seed, check in arm.stages.check.items():
            name = first.setdefault(check.key, f"{arm.name}/{seed}")
            inputs[f"scores.{name}"] = check
            names.append(name)
        scores[arm.name] = ArmScores(levels=dict(arm.levels), inputs=tuple(names))
    spec = Measure(
        arms=scores,
        contrasts=contrasts(file, drafts, document.where(("primary", "contrast"))),
        average=file.measure.average,
        confidence=file.measure.confidence,
        margin=file.measure.margin,
    )
    return Stage(spec, inputs, Resources(), "measure")
