"""Every error that micraframe raises on purpose.

```
MicraframeError
├── ConfigError               a configuration or a parameter is wrong; says file, line and key where there are such
├── PluginError               a plugin, or one of its components, cannot be used
│   ├── UnknownComponent      no plugin offers that name
│   ├── AmbiguousComponent    two plugins offer that name
│   ├── MissingDependency     the component's module needs something that is not installed
│   └── InterfaceError        the component's target does not exist or is not what its kind demands
├── DataError                 a file, an image, an annotation or an array is not as it must be
├── ModelError                a saved model cannot be read, or a backbone cannot serve
└── BatchError                some items of a batch failed; the others are done
```

A message says what came, what was wanted and what to do. The command line prints it as one line and exits with 1,
or with 2 where the command itself was wrong (`ConfigError`, `UnknownComponent`, `AmbiguousComponent`).
"""

from __future__ import annotations

from collections.abc import Mapping


class MicraframeError(Exception):
    """The root of all errors that micraframe raises on purpose."""


class ConfigError(MicraframeError):
    """A configuration or a parameter is wrong."""


class PluginError(MicraframeError):
    """A plugin, or one of its components, cannot be used."""


class UnknownComponent(PluginError):
    """No plugin offers a component of that kind and name."""


class AmbiguousComponent(PluginError):
    """Two plugins offer that name, and the name was used without saying which is meant."""


class MissingDependency(PluginError):
    """The component's module needs a distribution that is not installed."""


class InterfaceError(PluginError):
    """The component's target does not exist or does not implement its kind's interface."""


class PluginWarning(UserWarning):
    """A plugin was rejected at discovery; everything else works."""


class DataError(MicraframeError):
    """A file, an image, an annotation or an array is not as it must be."""


class ModelError(MicraframeError):
    """A saved model cannot be read, or a backbone cannot serve."""


class BatchError(MicraframeError):
    """Some items of a batch failed; the others are done.

    Attributes:
        failures: What went wrong, by the name of the item.
    """

    def __init__(self, doing: str, failures: Mapping[str, str], done: int) -> None:
        self.failures = dict(failures)
        # Errors of files begin with the file's name already.
        lines = "".join(
            f"\n  {why}" if why.startswith(f"{name}: ") else f"\n  {name}: {why}" for name, why in self.failures.items()
        )
        super().__init__(f"{doing}: {len(self.failures)} failed, {done} done:{lines}")
