"""The folder that `predict` writes to: which files in it are its own, and which it must not touch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from micraframe.errors import ConfigError
from micraframe.runtime.files import write_json

MANIFEST: Final = "predict.json"
"""Lists the predictions in a folder, with the method, head and thresholds that made them."""

LOCK: Final = ".lock"
"""Held while predictions are written, so that those of two processes do not mix."""

_SHOWN = 3
"""Number of foreign files that an error message names."""


def refuse_foreign(folder: Path, planned: Iterable[str]) -> None:
    """Check that files of the planned names would replace only earlier predictions; the folder need not exist.

    Raises:
        ConfigError: If the folder holds files of these names that no earlier prediction wrote, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder for the results, got a file; choose another --output")
    names = [MANIFEST, *planned]
    owned = _owned(folder)
    foreign = [name for name in names if name not in owned and (folder / name).exists()]
    if foreign:
        shown = ", ".join(foreign[:_SHOWN]) + (f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else "")
        raise ConfigError(
            f"{folder}: expected a new folder or one that predict wrote, got files that it would replace ({shown}); "
            "choose another folder, or move them"
        )


def claim(folder: Path, planned: Iterable[str], record: Mapping[str, Any]) -> None:
    """Prepare a folder for new predictions: remove earlier ones, and list the planned files in the manifest.

    The manifest also keeps the record of how the predictions are made.

    Raises:
        ConfigError: As `refuse_foreign`.
    """
    names = list(planned)
    refuse_foreign(folder, names)
    owned = _owned(folder)
    # Earlier files stay listed until they are gone, so that the next prediction removes what this one, killed, left.
    _write_manifest(folder, owned.union(names), record)
    for name in owned - {MANIFEST}:
        (folder / name).unlink(missing_ok=True)


def list_written(folder: Path, planned: Iterable[str], record: Mapping[str, Any]) -> None:
    """Reduce the manifest to the files that were written."""
    _write_manifest(folder, (name for name in planned if (folder / name).exists()), record)


def _write_manifest(folder: Path, names: Iterable[str], record: Mapping[str, Any]) -> None:
    write_json(folder / MANIFEST, {**record, "files": sorted({MANIFEST, *names})})


def read_contact_classes(folder: Path) -> list[str]:
    """Return the names of the classes that mark where objects touch; none if the manifest does not say."""
    roles = _read(folder, "roles")
    return [name for name, role in roles.items() if role == "contact"] if isinstance(roles, dict) else []


def _read(folder: Path, key: str) -> Any:
    """Return what the manifest says; None if there is no manifest, or it is not ours."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[key]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _owned(folder: Path) -> set[str]:
    """Return the names of the files that the manifest lists; none if there is no manifest, or it is not ours."""
    files = _read(folder, "files")
    names = {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
    # Even if the manifest was edited, nothing outside the folder is removed.
    return {name for name in names if Path(name).name == name != ".."} if MANIFEST in names else set()
