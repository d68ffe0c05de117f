"""Full-parameter tuning: every weight learns."""

from __future__ import annotations

from typing import Literal

from campana.tuning.method import Method


class Full(Method):
    """All parameters are trained."""

    kind: Literal["full"] = "full"
