"""`campana run`: build what is missing, then say what came out."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from campana.cli.forecasts import forecast
from campana.cli.live import Console
from campana.cli.plans import Opened, open_study, plan_of
from campana.cli.results import publish_report
from campana.core.executor import Executor
from campana.core.graph import by_key
from campana.core.machine import this_machine
from campana.core.runner import run
from campana.errors import StoreError, UserError
from campana.models.cache import default_cache_dir
from campana.outcome import gather

BUILT, FAILED, INTERRUPTED = 0, 1, 130


def run_study(study_path: Path, store_path: Path, executor_name: str, output: Path | None, cores: int | None = None) -> int:
    """Run a study to its end or as far as it goes; returns the exit code.

    The run is recorded in the store first, so that `gc` keeps its stages. The report is written even where a stage failed:
    it shows what is built and lists what is missing. What each stage is predicted to take, as far as `campana plan` has measured this
    machine, is recorded with the stage; not its time where a stage gets fewer `cores`, as those were measured with all.
    """
    opened = open_study(study_path, store_path, cores)
    _record(opened)
    expected = forecast(opened, plan_of(opened), probe=False).expected
    if cores is not None and cores < this_machine().cores:
        expected = {key: replace(told, seconds=None) for key, told in expected.items()}
    executor = _executor(executor_name)
    try:
        with Console() as console:
            result = run(opened.study.targets, opened.store, executor, console, expected=expected)
    finally:
        executor.close()
    if result.interrupted:
        return INTERRUPTED
    _tell(opened, output)
    if result.failed:
        sys.stderr.write(f"{len(result.failed)} failed, {len(result.blocked)} blocked; logs: {opened.store.root}/work/<key>/log.txt\n")
        labels = {key: stage.label for key, stage in by_key(opened.study.targets).items()}
        for key, cause in result.failed.items():  # told when it happened, and now far above
            sys.stderr.write(f"  {labels[key]}: {cause}\n  {opened.store.work_dir(key)}/log.txt\n")
        sys.stderr.write("hint: mend the cause and run the same command; what is built stays\n")
        return FAILED
    return BUILT


def _record(opened: Opened) -> None:
    """Note what the run needs. A store that cannot be written is no reason to refuse a study that is built already."""
    keys = list(by_key(opened.study.targets))
    try:
        where = opened.study.path
        opened.store.record_run(opened.study.name, keys, **({"study": str(where.resolve())} if where else {}))
    except StoreError:
        if not all(opened.store.has(key) for key in keys):
            raise


def _executor(name: str) -> Executor:
    if name == "inline":
        from campana.executors.inline import Inline

        return Inline(raise_errors=True, cache_dir=default_cache_dir(os.environ))
    if name == "local":
        from campana.executors.local import Local

        return Local()
    raise UserError(f"unknown executor {name!r}", hint="known: inline, local")


def _tell(opened: Opened, output: Path | None) -> None:
    """The answer first: it is worth reading even where the page cannot be written."""
    from campana.report.terminal import summary

    report = gather(opened.study, opened.store)
    sys.stdout.write(summary(report, 100) + "\n")
    sys.stdout.flush()
    sys.stdout.write(f"\nreport: {publish_report(report, opened.study, opened.store, output)}\n")
