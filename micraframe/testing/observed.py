"""Calls of a component, observed: what it returned, and whether it wrote to what it was given."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from micraframe.testing.report import Trial, basis, raised, require
from micraframe.types import Status

COPY = "copy what you change: array.copy()"


def content(value: Any) -> Any:
    """Return what a value holds, arrays as bytes, so that it can be compared with another."""
    if isinstance(value, nn.Module):
        return [
            content(dict(value.state_dict())),
            [(parameter.requires_grad, parameter.grad is None) for parameter in value.parameters()],
            [(m.training, len(m._forward_hooks), len(m._backward_hooks)) for m in value.modules()],
        ]
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().flatten()
        return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        value = list(value.items())
    return [content(part) for part in value] if isinstance(value, tuple | list) else repr(value)


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a component.

    Attributes:
        case: What is special about it; empty: nothing.
        result: What it returned; None if it raised an error.
        wrote: Whether it wrote, or tried to write, to its arguments.
        held: The content of the result when it was returned.
    """

    case: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    result: Any
    error: Exception | None
    wrote: bool
    held: Any

    def returned(self) -> Any:
        """Return the result.

        Raises:
            AssertionError: If it raised an error, which is the cause.
        """
        if self.error is not None:
            what = f"{self.function.__name__}{f' ({self.case})' if self.case else ''}"
            raise AssertionError(raised(what, self.error)) from self.error
        return self.result


def observe(function: Callable[..., Any], *args: Any, case: str = "") -> Call:
    """Call a component."""
    before = content(args)
    result, error = None, None
    try:
        result = function(*args)
    except Exception as caught:  # a component may raise anything
        error = caught
    # Arrays of the framework's types are read-only views.
    refused = isinstance(error, ValueError) and "read-only" in str(error)
    return Call(case, function, args, result, error, refused or content(args) != before, content(result))


class ObservedTrial(Trial):
    """A trial of a component that is a function of its arguments. These checks are for all of them."""

    @cached_property
    @abstractmethod
    def calls(self) -> list[Call]:
        """Return the calls, in order."""

    def cases(self, *cases: str) -> Iterable[Call]:
        """Return the calls of some cases."""
        return (call for call in self.calls if call.case in cases)

    @property
    def repeated(self) -> list[Call]:
        """The calls that are repeated, to see whether they return the same."""
        return self.calls

    @basis
    def inputs_unchanged(self) -> None:
        """A component does not write to what it is given."""
        for call in self.calls:
            require(not call.wrote, f"expected {call.function.__name__} to leave its inputs, got a change; {COPY}")

    @basis
    def fresh_results(self) -> None:
        """A result stays as it was when the next one is computed: no buffer is used again."""
        for call in self.calls:
            require(
                content(call.result) == call.held,
                f"expected the result of {call.function.__name__} to last, got another content after later calls; "
                "return a new array each time, not a buffer that is used again",
            )

    @basis
    def same_bytes(self) -> None:
        """The same input gives the same bytes, whatever came before."""
        for call in reversed(self.repeated):
            again = observe(call.function, *call.args)
            require(
                again.held == call.held,
                f"expected {call.function.__name__} to return the same bytes for the same input, got others; draw "
                "random numbers from a generator with a fixed seed, and keep nothing between calls",
            )


def require_statuses(found: Iterable[str], where: str) -> None:
    """Raise `AssertionError` unless these are known outcomes."""
    known = get_args(Status)
    for status in found:
        require(
            status in known, f"expected a status of {where} among {', '.join(known)}, got {status!r}; use one of them"
        )
