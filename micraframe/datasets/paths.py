"""The files of a dataset: their paths, names and content."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from micraframe.errors import ConfigError, DataError
from micraframe.images import IMAGE_SUFFIXES

VARIABLE = "MICRAFRAME_DATA"
"""The environment variable that names the folder of your data."""


def resolve(text: str) -> Path:
    """Return the path that a parameter names, relative to the working folder; expands `~` and `$MICRAFRAME_DATA/`.

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


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted; none if there is no such folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]


def images_in(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Return the images in a folder, sorted, by their names without suffix.

    Args:
        folder: The folder; its sub-folders are not searched.
        prefix: Put before each name.

    Raises:
        DataError: If the folder does not exist or has no image, or two images have the same name.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: image folder not found")
    found: dict[str, Path] = {}
    for path in image_files(folder):
        other = found.setdefault(prefix + path.stem, path)
        if other != path:
            raise DataError(f"{folder}: {other.name} and {path.name} have the same name; rename one of them")
    if not found:
        raise DataError(f"{folder}: holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return found


def find(folder: Path, name: str) -> Path | None:
    """Return the image file of that name, with any suffix, or None if there is none.

    Raises:
        DataError: If the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: folder not found")
    candidates = (folder / f"{name}{suffix}" for lower in IMAGE_SUFFIXES for suffix in (lower, lower.upper()))
    return next((path for path in candidates if path.is_file()), None)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; a file that has not changed is read only once.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        status = path.stat()
        return _file_digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=100_000)
def _file_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
