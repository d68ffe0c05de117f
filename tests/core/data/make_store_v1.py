"""Makes `store_v1`, the store that every later version must read: `python tests/core/data/make_store_v1.py` (once; never again).

The folder is checked in. Made anew it would differ in times and machine facts; the recipes, keys and files would be the same.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from stored import grow, publish  # noqa: E402 - found through the path above

from campana.core.spec import Stage  # noqa: E402
from campana.core.store import Store  # noqa: E402


def stages() -> list[Stage]:
    """Two stages, one on the other, with every sort of value that a recipe can hold."""
    data = grow("数据", options={"count": 1000})
    return [data, grow("tune", data, rate=1e-4, late=3)]


def main() -> None:
    """Write the store beside this file."""
    root = HERE / "store_v1"
    if root.exists():
        sys.exit(f"{root} exists: a store of version 1 is made once")
    platform.node = lambda: "somewhere"  # a checked-in file names no machine
    store = Store(root)
    data, tune = stages()
    with store.lock(data.key):  # type: ignore[union-attr]  # nobody else holds it
        store.begin(data.key)
        store.fail(data.key, 2.5, "the first try failed")
    publish(store, data)
    publish(store, tune)
    store.record_run("v1", [data.key, tune.key])
    shutil.rmtree(root / "locks")
    (root / "work").rmdir()


if __name__ == "__main__":
    main()
