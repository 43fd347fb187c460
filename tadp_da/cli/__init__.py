"""The front door: ``tadp-da``. Parses and prints; the work is in the stages.

Exit codes: 0 ok, 2 usage, 3 data, 4 environment, 5 diverged, 6 artifact, 75 interrupted after saving.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import typer

from tadp_da import __version__
from tadp_da.cli import (
    analyze,
    cache,
    config,
    data,
    distill,
    doctor,
    exchange,
    plan,
    playground,
    stages,
    submit,
)
from tadp_da.cli import benchmark as figure
from tadp_da.cli.options import ManySeeds
from tadp_da.distributed.processes import passed_on
from tadp_da.errors import InterruptedRunError, TadpError, UsageError
from tadp_da.installation import require_own_packages
from tadp_da.storage.files import storing
from tadp_da.terminal import TextConsole, prepare_streams
from tadp_da.training.signals import Stop, attended

app = typer.Typer(
    name="tadp-da",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Labels in one visual domain, only images in another: personalize a diffusion model to the new domain, "
    "and make it a perception model that works there.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tadp-da {__version__}")
        raise typer.Exit


@app.callback()
def _front(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="The version."),
) -> None:
    if context.invoked_subcommand != "doctor":  # which reports it with everything else
        require_own_packages()


def _add(group: typer.Typer, *functions: Callable[..., None]) -> None:
    """Commands; one below a word is called after what follows the word in the name of its function."""
    for function in functions:
        name = function.__name__.rpartition("_")[2]
        group.command(name, cls=ManySeeds)(function)


_add(app, config.init, figure.demo, stages.personalize, stages.caption, stages.rewrite, stages.adapt)
_add(app, stages.evaluate, stages.predict, figure.run, figure.compare, figure.report, playground.playground)
_add(
    app,
    analyze.analyze,
    plan.plan,
    submit.submit,
    distill.distill,
    exchange.export,
    exchange.push,
    doctor.doctor,
)
for word, about, functions in (
    (
        "benchmark",
        "Tables of caption strategies over seeds.",
        (figure.benchmark_list, figure.benchmark_run, plan.benchmark_table),
    ),
    (
        "data",
        "Data sets: what is known, how to get it, whether it is whole.",
        (data.data_list, data.data_check, data.data_legend),
    ),
    (
        "concept",
        "Concepts from other tools, and for them.",
        (exchange.concept_import, exchange.concept_export),
    ),
    (
        "cache",
        "The cache of latents, embeddings and captions that all runs share, in TADP_DA_CACHE.",
        (cache.cache_ls, cache.cache_verify, cache.cache_prune, cache.cache_why),
    ),
):
    group = typer.Typer(no_args_is_help=True, help=about)
    _add(group, *functions)
    app.add_typer(group, name=word)


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuse what no caption, manifest or report could hold."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UsageError(
                "an argument is not valid UTF-8",
                where=argument,
                fix="type it in a UTF-8 terminal; rename a file: convmv -f latin1 -t utf8 -r --notest PATH",
            )


def main() -> None:
    """Entry point: one place turns errors into lines and exit codes. ``--debug`` anywhere shows the traceback."""
    if debug := "--debug" in sys.argv:
        sys.argv.remove("--debug")
        passed_on[:] = ["--debug"]
    # it warns on import of a kernel that nothing here uses
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    prepare_streams()
    errors = TextConsole(stderr=True)
    try:
        with attended(), storing("the command's output"):
            _refuse_undecodable(sys.argv[1:])
            stages.refuse_alone(sys.argv[1:])
            app()
    except (Stop, InterruptedRunError) as stop:
        what = getattr(stop, "what", "interrupted; what was finished before is kept")
        errors.print(f"{what}. Run the same command again to go on")
        sys.exit(InterruptedRunError.exit_code)
    except TadpError as error:
        if debug:
            raise
        first, *rest = error.lines()
        errors.print(f"error: {first}", style="bold red")
        if rest:
            errors.print(*rest, sep="\n")
        sys.exit(error.exit_code)
