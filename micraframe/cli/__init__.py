"""The command line: one module per command, each importing what it needs only when it runs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from micraframe.cli import (
    catalog,
    check,
    compare_annotators,
    conformance,
    crops,
    data,
    demo,
    evaluate,
    finetune,
    import_zoo,
    new_plugin,
    predict,
    remodel,
    study,
    sweep,
    train,
    tune,
)
from micraframe.cli.interrupts import interrupts, print_interrupted
from micraframe.errors import AmbiguousComponent, ConfigError, MicraframeError, PluginWarning, UnknownComponent

app = typer.Typer(
    name="micraframe",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # paragraphs are wrapped, and help comes in half the time
)
app.command("demo", short_help="Run a comparison on embedded data; minutes, no network.")(demo.demo)
app.command("list", short_help="List the components that can be used.")(catalog.list_components)
app.command("show", short_help="Show a component and its parameters.")(catalog.show)
app.command("plugins", short_help="List plugins, and why any was rejected.")(catalog.plugins)
app.command("conformance", short_help="Check that a plugin's components keep their promises.")(conformance.conformance)
app.command("check", short_help="Check a configuration: its components, networks and data.")(check.check)
app.add_typer(data.app, name="data", short_help="Examine a dataset before training on it.")
app.command("crops", short_help="Cut images into crops, with a table of labels to fill in.")(crops.crops)
app.command("train", short_help="Train a method on a dataset.")(train.train)
app.command("finetune", short_help="Continue training a model on another dataset.")(finetune.finetune)
app.command("tune", short_help="Tune a saved model's thresholds on labelled images.")(tune.tune)
app.command("import-zoo", short_help="Convert published MICRA-Net models.")(import_zoo.import_zoo)
app.command("remodel", short_help="Change a saved model's head or parameters; nothing is trained.")(remodel.remodel)
app.command("predict", short_help="Predict images with a saved model.")(predict.predict)
app.command("evaluate", short_help="Measure predictions against the truth.")(evaluate.evaluate)
app.command("compare-annotators", short_help="Measure how well annotators agree.")(
    compare_annotators.compare_annotators
)
app.command("sweep", short_help="Find the classes in a very large image.")(sweep.sweep)
app.add_typer(study.app, name="study", short_help="Compare methods and annotations.")
app.command("new-plugin", short_help="Write a plugin that works at once, to make yours.")(new_plugin.new_plugin)


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        from micraframe import __version__

        print(f"micraframe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Compare microscopy segmentation from image-level labels with segmentation from full annotation."""


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print a warning about a plugin as one line, without a line of micraframe's code."""
    original = warnings.formatwarning

    def short(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is PluginWarning:
            return f"warning: {message}\n"
        return original(message, category, filename, lineno, line)

    warnings.formatwarning = short
    try:
        yield
    finally:
        warnings.formatwarning = original


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted (Ctrl-C)."""
    with interrupts() as interrupted, _short_warnings():
        try:
            app()
        except BaseException as error:
            if interrupted():  # libraries may raise other errors when they are interrupted
                sys.exit(print_interrupted())
            if not isinstance(error, MicraframeError | OSError):  # of the latter, a full disk or missing permission
                raise
            print(f"micraframe: {error}", file=sys.stderr)
            sys.exit(2 if isinstance(error, ConfigError | UnknownComponent | AmbiguousComponent) else 1)
