"""Command line. A command imports torch when it needs it, so that --help is quick."""

from typing import Annotated

import typer

import bnsuite
from bnsuite.cli import calibrate, claims, run, show, submission
from bnsuite.cli.export import export

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure what a normalization scheme buys: depth, learning rate, curvature, time to accuracy.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(bnsuite.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    run.run,
    show.board,
    export,
    calibrate.calibrate,
    claims.claims,
    submission.new,
    submission.check,
    submission.submit,
    submission.verify,
    submission.reproduce,
    show.schema,
):
    app.command()(command)
app.command("list")(show.list_)
