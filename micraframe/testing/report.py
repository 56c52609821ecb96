"""A check of a component, what it found, and how all checks of a component are run.

A `Trial` puts one component to use; its checks are methods marked by `Check` or `basis`. What a component does is
observed once and shared by the checks, so that each failure is reported by the one check that is about it. If a check
that others build on fails, the others are not applicable.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

from micraframe import registry
from micraframe.config import Choice
from micraframe.errors import ConfigError, MicraframeError, counted, reason_of
from micraframe.interfaces import Configured
from micraframe.testing.auditing import offline

CheckOutcome = Literal["passed", "failed", "not applicable", "opted out"]


class NotApplicable(Exception):
    """Raised by a check if the component does nothing that it is about; the text says why."""


@final
@dataclass(frozen=True)
class Check:
    """A promise, and the method of a `Trial` that checks it.

    Attributes:
        function: Raises `AssertionError` or `NotApplicable`, and may return a remark; named like the check; its
            docstring is the promise.
        basis: Whether the checks after it make no sense if it fails.
    """

    function: Callable[[Any], str | None]
    basis: bool = False

    @property
    def name(self) -> str:
        """What users write: `same-bytes`."""
        return self.function.__name__.replace("_", "-")

    @property
    def promise(self) -> str:
        """What a component must do, in one sentence."""
        return " ".join(inspect.cleandoc(self.function.__doc__ or "").split())


basis = functools.partial(Check, basis=True)
"""Marks a check that others build on."""


@final
@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes:
        check: Its name; empty if the component could not be tried out.
        outcome: `passed`; `failed`; `not applicable` or `opted out`, for a reason.
        reason: What was expected, what came and what to do; or the reason; or a remark.
        error: What was raised.
    """

    check: str
    outcome: CheckOutcome
    reason: str = ""
    error: Exception | None = field(default=None, repr=False, compare=False)


@final
@dataclass(frozen=True)
class Report:
    """The outcome of all checks of a component, by its qualified name, in the order in which they ran."""

    kind: str
    name: str
    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return self.of("failed")

    @property
    def summary(self) -> str:
        """One line: `31 checks run, 1 failed, 2 not applicable: it makes no masks`."""
        run = [result for result in self.of("passed", "failed") if result.check]
        parts = [f"{counted(len(run), 'check')} run"]
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        outcomes: tuple[CheckOutcome, ...] = ("not applicable", "opted out")
        for outcome in outcomes:
            reasons = [result.reason for result in self.of(outcome)]
            parts += [f"{len(reasons)} {outcome}: {'; '.join(dict.fromkeys(reasons))}"] if reasons else []
        return ", ".join(parts)

    def of(self, *outcomes: CheckOutcome) -> tuple[Result, ...]:
        """Return the results with one of these outcomes."""
        return tuple(result for result in self.results if result.outcome in outcomes)


class Trial(ABC):
    """Puts a component to use. These checks are for every kind.

    Attributes:
        choice: Name and parameters of the component.
        refused: Addresses to which it tried to connect.
    """

    component: Configured[Any]
    kind: ClassVar[str]

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.refused: list[str] = []
        self.component = registry.build(self.kind, choice.name, **choice.params)

    @classmethod
    @final
    def checks(cls) -> tuple[Check, ...]:
        """Return all checks: those that others build on first, and general ones before those of the kind."""
        every = (each for one in reversed(cls.__mro__) for each in vars(one).values() if isinstance(each, Check))
        found = {check.name: check for check in every}  # an overridden one keeps its place
        return tuple(sorted(found.values(), key=lambda check: not check.basis))

    @final
    def run(self, opt_out: Mapping[str, str]) -> tuple[Result, ...]:
        """Run all checks but those opted out of, by name with the reason.

        Raises:
            ConfigError: If there is no check of such a name.
        """
        names = [check.name for check in self.checks()]
        if unknown := sorted(opt_out.keys() - set(names)):
            raise ConfigError(
                f"opt_out: expected checks of a {self.kind}, got {', '.join(unknown)}; there are: {', '.join(names)}"
            )
        results: list[Result] = []
        blocked = ""
        with offline() as self.refused:
            for check in self.checks():
                results.append(
                    Result(check.name, "not applicable", f"{blocked} failed")
                    if blocked
                    else _opted_out(check, opt_out[check.name])
                    if check.name in opt_out
                    else self._run(check)
                )
                if check.basis and results[-1].outcome == "failed":
                    blocked = check.name
        return tuple(results)

    def _run(self, check: Check) -> Result:
        try:
            remark = check.function(self)
        except NotApplicable as error:
            return Result(check.name, "not applicable", str(error))
        except (AssertionError, MicraframeError) as error:
            return Result(check.name, "failed", str(error) or "an assertion of the component failed", error)
        except Exception as error:  # a component may raise anything
            return Result(check.name, "failed", raised("the component", error), error)
        return Result(check.name, "passed", remark or "")

    @basis
    def holds_parameters(self) -> None:
        """A component keeps its parameters in `params`, as its constructor was given them."""
        given = type(self.component).Params(**self.choice.params)
        got = getattr(self.component, "params", None)
        require(got == given, f"expected params {given!r}, got {got!r}; call super().__init__(params)")

    @Check
    def described_parameters(self) -> None:
        """Every parameter has a description, which `micraframe show` prints."""
        bare = [name for name, one in type(self.component.params).model_fields.items() if not one.description]
        require(not bare, f"expected a description of every parameter, got none of {', '.join(bare)}; add it to Field")

    @Check
    def strict_parameters(self) -> None:
        """`Params` forbids unknown parameters, so that a misspelt one is an error."""
        got = self.component.params.model_config.get("extra")
        require(got == "forbid", f'expected Params with extra="forbid", got {got!r}; remove it from model_config')

    @Check
    def parameters_as_json(self) -> None:
        """Parameters survive being saved as JSON."""
        params = self.component.params
        again = type(params).model_validate(params.model_dump(mode="json"))
        require(again == params, f"expected {params!r} after saving as JSON, got {again!r}; use types that JSON has")

    @Check
    def makes_no_request(self) -> None:
        """A component connects to no other machine."""
        hosts = ", ".join(dict.fromkeys(self.refused))
        require(not hosts, f"expected no request, got one to {hosts}; read files that users download themselves")


def _opted_out(check: Check, reason: str) -> Result:
    if reason.strip():
        return Result(check.name, "opted out", reason)
    message = f"expected a reason for opting out of {check.name}, got none; say why the promise is not kept"
    return Result(check.name, "failed", message, AssertionError(message))


def require(condition: object, message: str) -> None:
    """Raise `AssertionError` unless the condition holds; unlike `assert`, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def require_type(value: object, expected: type, what: str, remedy: str) -> None:
    """Raise `AssertionError` unless a value is of a type."""
    got = type(value).__name__
    require(isinstance(value, expected), f"expected {what} to be a {expected.__name__}, got a {got}; {remedy}")


def raised(what: str, error: BaseException) -> str:
    """Return a message about an exception that something raised, with the place."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, AssertionError | MicraframeError):
        return str(error)
    return f"expected {what} to return, got {reason_of(error, typed=True)}{place}; correct it there"
