"""Examining a component: all checks of its kind, for tests and for the command line."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from micraframe import registry
from micraframe.config import Choice
from micraframe.testing.annotators import AnnotatorTrial
from micraframe.testing.backbones import BackboneTrial
from micraframe.testing.combiners import CombinerTrial
from micraframe.testing.datasets import DatasetTrial
from micraframe.testing.extractors import ExtractorTrial
from micraframe.testing.heads import HeadTrial
from micraframe.testing.methods import MethodTrial
from micraframe.testing.metrics import MetricTrial
from micraframe.testing.report import Report, Result, Trial

TRIALS: Final[Mapping[str, type[Trial]]] = {
    trial.kind: trial
    for trial in (
        DatasetTrial,
        AnnotatorTrial,
        BackboneTrial,
        ExtractorTrial,
        CombinerTrial,
        HeadTrial,
        MethodTrial,
        MetricTrial,
    )
}
"""What tries out the components of each kind."""


def examine(
    kind: str, name: str, params: Mapping[str, Any] | None = None, opt_out: Mapping[str, str] | None = None
) -> Report:
    """Build a component and run all checks of its kind.

    Args:
        kind: The kind of component.
        name: Its name, or `plugin/name`.
        params: Its parameters; None: those of the example in its record.
        opt_out: Checks that are left out, with the reason; None: as its record says, if it is the example.

    Raises:
        PluginError: If it cannot be built.
        ConfigError: If a parameter is unknown or its value is not allowed, or there is no check of such a name.
    """
    entry = registry.catalog().find(kind, name)
    if opt_out is None:
        opt_out = entry.component.opt_out if params is None else {}
    choice = Choice(name=entry.qualified, params=dict(entry.component.example if params is None else params))
    return Report(kind, entry.qualified, TRIALS[kind](choice).run(opt_out))


def check(kind: str, name: str, /, **params: Any) -> Report:
    """Build a component and check all that its kind promises.

    Args:
        kind: The kind of component.
        name: Its name, or `plugin/name`.
        **params: Its parameters; without any, those of the example in its record.

    Returns:
        The outcome of each check.

    Raises:
        AssertionError: If it breaks a promise; the message says which.
        PluginError: If it cannot be built.
        ConfigError: If a parameter is unknown or its value is not allowed.
    """
    report = examine(kind, name, params or None)
    if report.failures:
        lines = [_line(kind, name, failure) for failure in report.failures]
        raise AssertionError("\n".join(lines)) from report.failures[0].error
    return report


class Conformance:
    """The checks of a component as tests of pytest, one for each check.

        class TestEdges(Conformance):
            kind = "combiner"
            name = "my-plugin/edges"

    Attributes:
        kind: The kind of component.
        name: Its name, or `plugin/name`.
        params: Its parameters; without any, those of the example in its record.
        opt_out: Checks that are left out, with the reason; without any, as the record says of its example.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    params: ClassVar[Mapping[str, Any]] = {}
    opt_out: ClassVar[Mapping[str, str]] = {}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make a test of each check, named like it."""
        if "conformance_check" in metafunc.fixturenames:
            metafunc.parametrize("conformance_check", [check.name for check in TRIALS[self.kind].checks()])

    def test_conformance(self, conformance_check: str) -> None:
        """Check one promise; skip it, with the reason, if it is not applicable or opted out of."""
        import pytest

        result = next(each for each in self._report().results if each.check == conformance_check)
        if result.outcome == "failed":
            raise AssertionError(_line(self.kind, self.name, result)) from result.error
        if result.outcome != "passed":
            pytest.skip(f"{result.outcome}: {result.reason}")

    @classmethod
    @functools.cache
    def _report(cls) -> Report:
        return examine(cls.kind, cls.name, cls.params or None, cls.opt_out or None)


def _line(kind: str, name: str, failure: Result) -> str:
    # Many errors of the framework name the component already.
    named = failure.reason.startswith(f"{kind} ")
    return f"{'' if named else f'{kind} {name}: '}{failure.reason} (check {failure.check})"
