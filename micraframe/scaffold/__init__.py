"""What `micraframe new-plugin` writes: a distribution with a minimal component of each kind, which works at once."""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Collection
from importlib import metadata, resources, util
from pathlib import Path
from typing import Final

from micraframe import plugin
from micraframe.errors import ConfigError
from micraframe.plugin import KINDS, Component
from micraframe.runtime.files import atomic_folder

COMPONENTS: Final = {
    component.kind: component
    for component in (
        Component("dataset", "discs", "dataset:Discs", "Drawn discs in noise"),
        Component("annotator", "one-click", "annotator:OneClick", "One random pixel of each class"),
        Component("backbone", "two-convolutions", "backbone:TwoConvolutions", "Two convolutions"),
        Component("extractor", "deepest-cam", "extractor:DeepestCam", "CAM of the deepest layer"),
        Component("combiner", "stretched-mean", "combiner:StretchedMean", "Mean of all layers"),
        Component("head", "above-half", "head:AboveHalf", "Pixels where the map is above one half"),
        Component("method", "brightness-map", "method:BrightnessMap", "Bright pixels are structures"),
        Component("metric", "area-difference", "metric:AreaDifference", "Difference of areas"),
    )
}
"""The component of each kind; targets are relative to the plugin's package."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_PROJECT: Final = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "Components for micraframe"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["micraframe>={version}"]

[project.entry-points.micraframe]
{name} = "{package}"

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""

_README: Final = """\
# {name}

Components for micraframe. From this folder:

    pip install --editable .
    micraframe list                   # shows them with [{name}]
    micraframe conformance {name}
    pytest

`{package}/__init__.py` lists the components; each has a module and a test. Change them, add others, and keep the tests
passing.
"""

_ENTRY: Final = '''\
"""Components for micraframe. Loaded by every command: it imports nothing but `micraframe.plugin`."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = {api}


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
{records}
    ]
'''

_TESTS: Final = '''\
"""Every component keeps the promises of its kind. Add tests of what yours compute."""

from __future__ import annotations

from micraframe.testing import Conformance
'''

_TEST: Final = """

class Test{title}(Conformance):
    kind = "{kind}"
    name = "{plugin}/{name}"
"""


def plugin_files(name: str, kinds: Collection[str]) -> dict[str, str]:
    """Return the files of a new plugin: text by path in its folder.

    Args:
        name: Name of the distribution, and of its entry point.
        kinds: Kinds of component that it offers.

    Raises:
        ConfigError: If the name could not be that of a distribution and of a package, or there is no such kind.
    """
    package = _package(name)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"expected kinds among {', '.join(KINDS)}, got {unknown[0]!r}; correct --kinds")
    if not kinds:
        raise ConfigError(f"expected one or more kinds, got none; name some of {', '.join(KINDS)}")
    offered = [COMPONENTS[kind] for kind in KINDS if kind in kinds]
    records = [
        f'        Component("{each.kind}", "{each.name}", "{package}.{each.target}", "{each.summary}"),'
        for each in offered
    ]
    tests = [_TEST.format(title=each.kind.title(), kind=each.kind, plugin=name, name=each.name) for each in offered]
    modules = resources.files("micraframe.scaffold.components")
    return {
        "pyproject.toml": _PROJECT.format(name=name, package=package, version=metadata.version("micraframe")),
        "README.md": _README.format(name=name, package=package),
        f"{package}/__init__.py": _ENTRY.format(api=plugin.API, records="\n".join(records)),
        f"tests/test_{package}.py": _TESTS + "".join(tests),
        **{
            f"{package}/{each.kind}.py": modules.joinpath(f"{each.kind}.py").read_text(encoding="utf-8")
            for each in offered
        },
    }


def write_plugin(name: str, kinds: Collection[str], folder: Path) -> None:
    """Write a new plugin, whole or not at all.

    Args:
        name: Name of the distribution, and of its entry point.
        kinds: Kinds of component that it offers.
        folder: Where to; it must not exist.

    Raises:
        ConfigError: As `plugin_files`, or if there is something at `folder`, or another package has the name.
    """
    files = plugin_files(name, kinds)
    package = _package(name)
    plugins = {point.value for point in metadata.entry_points(group=plugin.GROUP)}
    if util.find_spec(package) and package not in plugins:  # an earlier version of the plugin may be installed
        raise ConfigError(f"expected a name that is free, got {name!r}: there is a package {package}; choose another")
    if os.path.lexists(folder):
        raise ConfigError(f"{folder}: expected no file or folder, got one; choose another --output, or move it")
    with atomic_folder(folder) as temporary:
        for path, text in files.items():
            target = temporary / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")


def _package(name: str) -> str:
    """Return the name of a distribution's package; raise `ConfigError` unless both can have it."""
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise ConfigError(
            f"expected a name of lower-case letters, digits and single hyphens that begins with a letter and is no "
            f"keyword of Python, got {name!r}; choose another, such as 'my-plugin'"
        )
    return package
