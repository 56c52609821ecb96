"""`micraframe check`: a configuration with everything looked up and written out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from micraframe.cli.output import ConfigFile

if TYPE_CHECKING:
    from micraframe.config import FineTune, Study, Train


def check(file: ConfigFile) -> None:
    """Check a configuration for train, finetune or study, and print it with every default written out."""
    from micraframe import config

    print(config.to_yaml(read_any(Path(file))), end="")


def read_any(path: Path) -> Train | FineTune | Study:
    """Read and resolve a configuration of the kind that its keys suggest."""
    from micraframe import config

    keys = {line.partition(":")[0] for line in _lines(path)}
    if keys & {"methods", "datasets"}:
        return config.load(path, config.Study)
    if "training" in keys:
        return config.load(path, config.FineTune)
    return config.load(path, config.Train)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []  # config.load reports the reason
