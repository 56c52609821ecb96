"""The files of a dataset: where they are, what they are named after, what is in them."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from micraframe.errors import ConfigError, DataError
from micraframe.images import IMAGE_SUFFIXES

VARIABLE = "MICRAFRAME_DATA"
"""The environment variable that says where data are kept."""


def resolve(text: str) -> Path:
    """Return the path that a parameter means: relative to the working folder, `~` and `$MICRAFRAME_DATA/` replaced.

    Raises:
        ConfigError: If it begins with `$MICRAFRAME_DATA` and that variable is not set.
    """
    head, _, tail = text.partition("/")
    if head != f"${VARIABLE}":
        return Path(text).expanduser()
    root = os.environ.get(VARIABLE)
    if not root:
        raise ConfigError(f"{text}: the environment variable {VARIABLE} is not set; set it to the folder of your data")
    return Path(root).expanduser() / tail


def images_in(folder: Path, name: str = "") -> dict[str, Path]:
    """Return the images of a folder, sorted, by their name without suffix.

    Args:
        folder: Where they are.
        name: What goes before each name.

    Raises:
        DataError: If there is no such folder, no image in it, or there are two with one name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            other = found.setdefault(name + path.stem, path)
            if other != path:
                raise DataError(f"{folder}: {other.name} and {path.name} have the same name; rename one of them")
    if not found:
        raise DataError(f"{folder}: holds no images; suffixes taken: {', '.join(IMAGE_SUFFIXES)}")
    return found


def find(folder: Path, name: str) -> Path | None:
    """Return the file of that name, whatever its suffix, or None where there is none.

    Raises:
        DataError: If there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    candidates = (folder / f"{name}{suffix}" for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper()))
    return next((path for path in candidates if path.is_file()), None)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; one that has not changed since is not read again."""
    try:
        status = path.stat()
        return _file_digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=100_000)
def _file_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
