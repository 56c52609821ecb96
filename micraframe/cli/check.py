"""`micraframe check`: what a configuration means, whole."""

from __future__ import annotations

from pathlib import Path

from micraframe.cli.output import ConfigFile


def check(file: ConfigFile) -> None:
    """Check a configuration and print it whole: every component looked up, every default written out."""
    from micraframe import config

    print(config.to_yaml(read_any(Path(file))), end="")


def read_any(path: Path):  # type: ignore[no-untyped-def]  # a Train or a Study, which are imported only here
    """Read and resolve a `Train` or a `Study`, by whether the file speaks of contenders."""
    from micraframe import config

    is_study = any(line.startswith(("contenders:", "datasets:")) for line in _lines(path))
    return config.load(path, config.Study if is_study else config.Train)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []  # the reader says what is wrong with it
