"""Atomic writes, after which a file has either its old or its new content, and digests of content."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from micraframe.errors import ConfigError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; the file written there replaces `path` at the end.

    If the block raises, the temporary file is removed and `path` stays as it was. The same holds if the power fails:
    the new content is on the disk before it replaces the old.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp creates private files; the result should be as readable as the user's other files.
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it replaces `path` at the end, or, if it cannot, `path` stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.replace(old)
        try:
            temporary.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def refuse_existing(output: Path, reason: str = "got one with files") -> None:
    """Check that writing to a folder replaces nothing.

    Raises:
        ConfigError: If it exists and is not an empty folder, for this reason.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output}: expected a new or empty folder, {reason}; choose another --output")


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys; raise `ValueError` if it holds NaN."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def digest(*parts: bytes | str | Iterable[bytes]) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of a sequence of parts; where one ends and the next begins counts."""
    whole = hashlib.sha256()
    for part in parts:
        one = hashlib.sha256()
        for piece in [part] if isinstance(part, bytes | str) else part:
            one.update(piece.encode() if isinstance(piece, str) else piece)
        whole.update(one.digest())
    return whole.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a value's JSON, independent of the order of keys."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _sync(path: Path) -> None:
    """Wait until a file's content is on the disk; otherwise a power failure could leave its name with half of it."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


@functools.cache  # it can only be read by changing it, which other threads would notice
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
