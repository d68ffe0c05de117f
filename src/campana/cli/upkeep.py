"""`campana verify` and `campana gc`: keeping a store sound and small."""

from __future__ import annotations

import sys
from pathlib import Path

from campana.core.gc import plan_gc, sweep
from campana.core.store import Store
from campana.core.verify import verify as verify_store

OK, FAILED = 0, 1
