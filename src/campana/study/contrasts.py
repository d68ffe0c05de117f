"""Which arms are compared with which: the primary contrast, every pair of levels, every arm against the first baseline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from campana.errors import StudyError
from campana.parts import nearest
from campana.stages.measure import Contrast
from campana.study.arms import Draft
from campana.study.schema import StudyFile

MOST_PAIRED_LEVELS = 4
"""A factor with more levels is compared level by level with its first only: fewer tests, more power."""


def contrasts(file: StudyFile, drafts: Sequence[Draft], where: str) -> tuple[Contrast, ...]:
    """All contrasts of a study, the primary first. A side is `factor=level` or the name of a baseline.

    Arms of the two sides are matched by their levels of all other factors; arms without a partner are left out.
    """
    left, right = file.primary.contrast
    if left == right:
        raise StudyError(f"the primary contrast compares {left} with itself", where=where, hint="contrast two levels of one factor")
    primary = _contrast(file, drafts, left, right, where, primary=True)
    if primary is None:
        raise StudyError(
            f"the primary contrast {left} - {right} has no two arms that differ in this alone",
            where=where,
            hint="check `exclude`, or contrast two levels of one factor",
        )
    found = [primary]
    for factor, levels in file.factors.items():
        names = list(levels)
        pairs = itertools.combinations(names, 2) if len(names) <= MOST_PAIRED_LEVELS else ((names[0], name) for name in names[1:])
        for first, second in pairs:
            contrast = _contrast(file, drafts, f"{factor}={second}", f"{factor}={first}", where)
            if contrast is not None and {contrast.left, contrast.right} != {primary.left, primary.right}:
                found.append(contrast)
    baselines = [draft.name for draft in drafts if draft.baseline]
    if baselines:
        for draft in drafts:
            sides = {(draft.name,), (baselines[0],)}
            if draft.name != baselines[0] and all({one.left, one.right} != sides for one in found):
                found.append(Contrast(name=f"{draft.name} - {baselines[0]}", left=(draft.name,), right=(baselines[0],)))
    return tuple(found)


def _contrast(file: StudyFile, drafts: Sequence[Draft], left: str, right: str, where: str, primary: bool = False) -> Contrast | None:
    left_arms, left_factor = _side(file, drafts, left, where)
    right_arms, right_factor = _side(file, drafts, right, where)
    if left_factor != right_factor and left_factor and right_factor:
        raise StudyError(f"{left} and {right} are levels of two factors", where=where, hint="contrast two levels of one factor")
    factor = left_factor or right_factor
    pairs = [
        (one.name, other.name)
        for one in left_arms
        for other in right_arms
        if one.baseline or other.baseline or _others(one.levels, factor) == _others(other.levels, factor)
    ]
    if not pairs:
        return None
    sides = left.removeprefix(f"{factor}="), right.removeprefix(f"{factor}=")
    name = f"{factor}: {sides[0]} - {sides[1]}" if left_factor and right_factor else f"{left} - {right}"
    return Contrast(name=name, left=tuple(one for one, _ in pairs), right=tuple(other for _, other in pairs), primary=primary)


def _others(levels: Mapping[str, str], factor: str | None) -> dict[str, str]:
    return {name: level for name, level in levels.items() if name != factor}


def _side(file: StudyFile, drafts: Sequence[Draft], side: str, where: str) -> tuple[list[Draft], str | None]:
    if "=" not in side:
        arms = [draft for draft in drafts if draft.baseline and draft.name == side]
        if not arms:
            raise StudyError(
                f"{side!r} is no baseline",
                where=where,
                hint=f"write factor=level, or a baseline: {', '.join(file.baselines) or 'there is none'}",
            )
        return arms, None
    factor, _, level = side.partition("=")
    if factor not in file.factors:
        raise StudyError(f"unknown factor {factor!r}", where=where, hint=nearest(factor, list(file.factors)))
    if level not in file.factors[factor]:
        raise StudyError(f"factor {factor!r} has no level {level!r}", where=where, hint=nearest(level, list(file.factors[factor])))
    return [draft for draft in drafts if draft.levels.get(factor) == level], factor
