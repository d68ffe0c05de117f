"""`select`: choose the learning rate with the lowest held-out loss among trials of equal budget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from campana.core.spec import Context, Meter, StageSpec


class Select(StageSpec):
    """Inputs: `trial.<n>`, the `tune` stages of the candidates. Writes `selected.json`."""

    kind: Literal["select"] = "select"
    candidates: tuple[float, ...]
    """The learning rates, in the order of the inputs `trial.0`, `trial.1`, ..."""

    def run(self, context: Context) -> Meter:
        from campana.tuning.selection import select

        return select(self.candidates, context.many("trial"), context.out_dir)

    def outputs_to_check(self) -> Iterable[str]:
        return ("selected.json",)
