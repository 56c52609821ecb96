"""`micraframe check`: looks up all components of a configuration, and writes out every default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from micraframe.cli.output import ConfigFile

if TYPE_CHECKING:
    from micraframe.config import FineTune, Study, Train


def check(file: ConfigFile) -> None:
    """Check a configuration for train, finetune or study, and print it with every default written out.

    It reads no data: whether files exist and annotation suffices is checked by train and by study run --dry-run.
    """
    from micraframe import config

    print(config.to_yaml(read_any(Path(file))), end="")


def read_any(path: Path) -> Train | FineTune | Study:
    """Read and resolve a configuration; its keys tell which command it is for."""
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
