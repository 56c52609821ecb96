"""Every error that micraframe raises on purpose.

```
MicraframeError
├── ConfigError               a configuration or a parameter is wrong; names file, line and key where there are any
├── PluginError               a plugin, or one of its components, cannot be used
│   ├── UnknownComponent      no plugin offers a component of this kind and name
│   ├── AmbiguousComponent    two plugins offer a component of this kind and name
│   ├── MissingDependency     the component's module needs a distribution that is not installed
│   └── InterfaceError        the component is missing, or does not implement its interface
├── DataError                 a file, an image, an annotation or an array is invalid
├── ModelError                a saved model cannot be read, or a backbone cannot be used
└── BatchError                some items of a batch failed; the others are done
```

A message says what was expected, what was found and what to do. The command line prints it without a traceback and
exits with 1, or with 2 if the command itself was wrong (`ConfigError`, `UnknownComponent`, `AmbiguousComponent`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun, for a message: `1 channel`, `2 channels`; the plural of most nouns adds an s."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def reason_of(error: BaseException, typed: bool = False) -> str:
    """Return the first line of any exception's text, for a message; after its type if `typed` or without a text."""
    lines = str(error).strip().splitlines()
    return ": ".join([*([type(error).__name__] if typed or not lines else []), *lines[:1]])


class MicraframeError(Exception):
    """The root of all errors that micraframe raises on purpose."""


class ConfigError(MicraframeError):
    """A configuration or a parameter is wrong."""


class PluginError(MicraframeError):
    """A plugin, or one of its components, cannot be used."""


class UnknownComponent(PluginError):
    """No plugin offers a component of this kind and name."""


class AmbiguousComponent(PluginError):
    """Two plugins offer a component of this kind and name, and the name does not say which is meant."""


class MissingDependency(PluginError):
    """The component's module needs a distribution that is not installed."""


class InterfaceError(PluginError):
    """The component is missing, or does not implement its interface."""


class PluginWarning(UserWarning):
    """A plugin was rejected at discovery; everything else works."""


class DataError(MicraframeError):
    """A file, an image, an annotation or an array is invalid."""


class ModelError(MicraframeError):
    """A saved model cannot be read, or a backbone cannot be used."""


class BatchError(MicraframeError):
    """Some items of a batch failed; the others are done.

    Attributes:
        failures: The reason for each failure, by the name of the item.
    """

    def __init__(self, task: str, failures: Mapping[str, str], done: int, items: str = "images") -> None:
        self.failures = dict(failures)
        grouped: dict[str, list[str]] = {}
        for name, reason in self.failures.items():
            grouped.setdefault(_without_name(reason, name), []).append(name)
        lines = []
        for first, *others in grouped.values():
            # Errors about files begin with the file's name already.
            reason = self.failures[first].removeprefix(f"{first}: ")
            many = f"{len(others) + 1} {items}: {reason} (first: {first})"
            lines.append(f"\n  {many if others else f'{first}: {reason}'}")
        super().__init__(f"{task}: {len(self.failures)} failed, {done} done:{''.join(lines)}")


def _without_name(reason: str, name: str) -> str:
    """Return a reason without the name of its item, for comparison with the reasons of other items."""
    stem = PurePath(name).stem
    return re.sub("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in (name, stem) if word), "", reason)
