"""Every error that micraframe raises on purpose.

```
MicraframeError
├── ConfigError               a configuration or a parameter is wrong; names file, line and key where there are any
├── PluginError               a plugin, or one of its components, cannot be used
│   ├── UnknownComponent      no plugin offers a component of this kind and name
│   ├── AmbiguousComponent    two plugins offer a component of this kind and name
│   ├── MissingDependency     the component's module needs a distribution that is not installed
│   └── InterfaceError        the component does not exist or breaks the contract of its kind
├── DataError                 a file, an image, an annotation or an array is invalid
├── ModelError                a saved model cannot be read, or a backbone cannot be used
└── BatchError                some items of a batch failed; the others are done
```

A message says what was expected, what came and what to do. The command line prints it without a traceback and exits
with 1, or with 2 where the command itself was wrong (`ConfigError`, `UnknownComponent`, `AmbiguousComponent`).
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
    """No plugin offers a component of this kind and name."""


class AmbiguousComponent(PluginError):
    """Two plugins offer a component of this kind and name, and the name does not say which is meant."""


class MissingDependency(PluginError):
    """The component's module needs a distribution that is not installed."""


class InterfaceError(PluginError):
    """The component does not exist or breaks the contract of its kind."""


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

    def __init__(self, task: str, failures: Mapping[str, str], done: int) -> None:
        self.failures = dict(failures)
        # Errors about files begin with the file's name already.
        lines = "".join(
            f"\n  {reason}" if reason.startswith(f"{name}: ") else f"\n  {name}: {reason}"
            for name, reason in self.failures.items()
        )
        super().__init__(f"{task}: {len(self.failures)} failed, {done} done:{lines}")
