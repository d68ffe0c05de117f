"""`campana verify` and `campana gc`: keeping a store sound and small."""

from __future__ import annotations

import sys
from pathlib import Path

from campana.core.gc import plan_gc, sweep
from campana.core.store import Store
from campana.core.verify import verify as verify_store
from campana.errors import UserError

SOUND, DAMAGED = 0, 1


def verify(store_path: Path, repair: bool) -> int:
    """Check every stored file; returns 0 where all are sound, 1 where some are not (set aside with `repair`)."""
    store = _open(store_path)
    keys: list[str] = []
    damages = verify_store(store, repair=repair, tell=keys.append)
    for damage in damages:
        sys.stdout.write(f"{damage}\n")
    if not damages:
        sys.stdout.write(f"{len(keys)} objects, all sound\n")
        return SOUND
    objects = len({damage.key for damage in damages})
    sys.stderr.write(f"{objects} of {len(keys)} objects are damaged\n")
    sys.stderr.write("hint: campana run STUDY builds them again\n" if repair else "hint: campana verify --repair sets them aside\n")
    return DAMAGED


def collect(store_path: Path, delete: bool, last_runs: int | None) -> int:
    """List what no run names, dearest first; with `delete`, delete it."""
    store = _open(store_path)
    garbage = plan_gc(store, last_runs=last_runs)
    if not garbage:
        sys.stdout.write("nothing to delete: every object is named by a run\n")
        return SOUND
    width = max(len(one.label) for one in garbage)
    for one in garbage:
        sys.stdout.write(
            f"{one.key[:8]}  {one.what:<10}  {one.label:<{width}}  {_size(one.num_bytes):>9}  {one.seconds:9.1f} s to build again\n"
        )
    size, seconds = _size(sum(one.num_bytes for one in garbage)), sum(one.seconds for one in garbage)
    total = f"{len(garbage)} things, {size}, {seconds:,.0f} s to build again"
    if not delete:
        sys.stdout.write(f"{total}\n")
        sys.stderr.write("nothing is deleted; hint: campana gc --delete\n")
        return SOUND
    deleted = sweep(store, garbage, last_runs=last_runs)
    sys.stdout.write(f"deleted {len(deleted)} of {total}\n")
    return SOUND


def _open(store_path: Path) -> Store:
    if not store_path.is_dir():
        raise UserError("there is no store here", where=str(store_path), hint="run where the study ran, or give --store DIR")
    return Store(store_path)


def _size(num_bytes: int) -> str:
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
