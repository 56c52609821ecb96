"""The command line: one module per command, each importing what it needs only when it runs."""

from __future__ import annotations

import sys

import typer

from micraframe.cli import agreement, catalog, check, demo, evaluate, finetune, predict, study, sweep, train
from micraframe.errors import AmbiguousComponent, ConfigError, MicraframeError, UnknownComponent

app = typer.Typer(
    name="micraframe",
    help="How far do image-level labels take a microscopy segmentation, and what would full annotation buy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("list")(catalog.list_components)
app.command("show")(catalog.show)
app.command("plugins")(catalog.plugins)
app.command("check")(check.check)
app.command("train")(train.train)
app.command("finetune")(finetune.finetune)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("agreement")(agreement.agreement)
app.command("sweep")(sweep.sweep)
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line: exit code 0 is done, 1 failed, 2 wrong usage."""
    try:
        app()
    except MicraframeError as error:
        print(f"micraframe: {error}", file=sys.stderr)
        wrong_usage = isinstance(error, ConfigError | UnknownComponent | AmbiguousComponent)
        sys.exit(2 if wrong_usage else 1)
    except OSError as error:  # a full disk, a folder that must not be written to
        print(f"micraframe: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("micraframe: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
