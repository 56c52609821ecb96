"""Writing files so that each is either the old one or the new one, and telling files apart by their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and put what was written there in its place at the end.

    If the block raises, the temporary file is removed and `path` stays as it was. If the power fails, too: what was
    written is on the disk before it takes the place of what was there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; what we leave behind is as readable as anything else the user writes.
        temporary.chmod(0o666 & ~_umask())
        _settle(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, and put it in its place at the end, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys; NaN is not allowed."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def digest(*parts: bytes | str | Iterable[bytes]) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of the parts, each told from the next by its length."""
    whole = hashlib.sha256()
    for part in parts:
        one = hashlib.sha256()
        for piece in [part] if isinstance(part, bytes | str) else part:
            one.update(piece.encode() if isinstance(piece, str) else piece)
        whole.update(one.digest())
    return whole.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a value's JSON, whatever the order of its keys."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _settle(path: Path) -> None:
    """Wait until the content of a file is on the disk: a name may otherwise outlive a loss of power, cut short."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
