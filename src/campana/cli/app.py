"""The commands: plan, run, why, show, report, verify, gc, describe.

This module only parses words and sends them on; nothing heavy is imported before a command needs it, so that
`campana --help` and `campana plan` are quick.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from campana.cli import read
from campana.errors import CampanaError, StoreError, UserError

OK, FAILED, WRONG = 0, 1, 2

app = typer.Typer(
    name="campana",
    help="Studies of how to tune a language model, answered with intervals and costs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(read.app)

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (YAML).", show_default=False)]
StorePath = Annotated[Path, typer.Option("--store", envvar="CAMPANA_STORE", help="Where built stages are kept.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]
DEFAULT_STORE = Path(".campana")


def _version(wanted: bool) -> None:
    if wanted:
        from campana import __version__

        _print(f"campana {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[bool, typer.Option("--version", help="Say which campana this is.", is_eager=True, callback=_version)] = False,
) -> None:
    """Studies of how to tune a language model, answered with intervals and costs."""
    del version  # typer has called `_version`


def main() -> None:
    """Run the command line; the exit code says how it ended."""
    try:
        app(standalone_mode=True)
    except StoreError as error:  # the study may be right: the machine is not
        _say(f"error: {error}")
        sys.exit(FAILED)
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(WRONG)
    except CampanaError as error:
        _say(f"error: {error}")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where it stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:  # no path that a person could look at
            raise
        _say(f"error: {os.fsdecode(error.filename)}: {error.strerror}")
        sys.exit(FAILED)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_json(value: Any) -> None:
    _print(json.dumps(value, ensure_ascii=False, indent=1))


@app.command()
def plan(
    study: StudyPath,
    store: StorePath = DEFAULT_STORE,
    probe: Annotated[
        bool,
        typer.Option("--probe/--no-probe", help="Measure this machine for the predictions where that was not done yet: under a minute."),
    ] = True,
    as_json: Json = False,
) -> None:
    """What would run, why, and what it would take: time, memory, disk and money. Builds nothing."""
    from campana.cli import forecasts, plans

    opened = plans.open_study(study, store)
    planned = plans.plan_of(opened)
    told = forecasts.forecast(opened, planned, probe=probe)
    if as_json:
        _print_json(plans.as_json(opened, planned, told))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        _print(plans.as_text(opened, planned, told, width))


@app.command()
def run(
    study: StudyPath,
    store: StorePath = DEFAULT_STORE,
    executor: Annotated[str, typer.Option(help="local: a process a stage; inline: all in this one, for a debugger.")] = "local",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the report; default: reports/<study> in the store, <study>-<digest> where a namesake has it.",
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cores of a stage; default: all. With fewer, stages run side by side, which is quicker where models are small.",
        ),
    ] = None,
) -> None:
    """Run a study, or go on where it stopped: the same command."""
    from campana.cli import runs

    raise typer.Exit(runs.run_study(study, store, executor, output, cores))


@app.command()
def why(
    study: StudyPath,
    stage: Annotated[str, typer.Argument(help="A stage: words of its label, or the start of its key.")],
    store: StorePath = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Why a stage is built or not: which field differs from what is stored; its recipe, files and attempts."""
    from campana.cli import plans

    told = plans.why(plans.open_study(study, store), stage)
    if as_json:
        _print_json(told)
    else:
        _print(plans.why_text(told))


@app.command()
def show(
    study: StudyPath,
    store: StorePath = DEFAULT_STORE,
    item: Annotated[str | None, typer.Option(help="One prompt: the arms' answers, scores and reasons.")] = None,
    as_json: Json = False,
) -> None:
    """The answer of a study: arms, estimates with intervals, contrasts, costs."""
    from campana.cli import results

    _print(results.show(study, store, item, as_json))


@app.command()
def report(
    study: StudyPath,
    store: StorePath = DEFAULT_STORE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write to; default: reports/<study> in the store, <study>-<digest> where a namesake has it.",
        ),
    ] = None,
) -> None:
    """Write report.html (one self-contained page) and report.json (every number in it)."""
    from campana.cli import results

    opened = results.open_results(study, store)
    _print(str(results.write_report(opened.study, opened.store, output)[1]))


@app.command()
def verify(
    store: StorePath = DEFAULT_STORE,
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged objects aside, so that the next run builds them again.")] = False,
) -> None:
    """Check every stored file against its hash."""
    from campana.cli import upkeep

    raise typer.Exit(upkeep.verify(store, repair))


@app.command()
def gc(
    store: StorePath = DEFAULT_STORE,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed; without it nothing is touched.")] = False,
    last: Annotated[int | None, typer.Option(min=1, help="Keep only what the last so many runs of each study name; default: all.")] = None,
) -> None:
    """List what no run names any more, with what building it again would cost."""
    from campana.cli import upkeep

    raise typer.Exit(upkeep.collect(store, delete, last))


@app.command()
def describe(
    group: Annotated[
        str | None, typer.Argument(help="A group of kinds: stage, source, format, method, engine, check, edit, objective.")
    ] = None,
    kind: Annotated[str | None, typer.Argument(help="One kind: its fields.")] = None,
    schema: Annotated[str | None, typer.Option(help="Print a JSON Schema: study, report, plan or show.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, engines, checks and other kinds that studies can name, with their fields."""
    from campana.cli import descriptions

    _print(descriptions.describe(group, kind, schema, as_json))


if __name__ == "__main__":
    main()
