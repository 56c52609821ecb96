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

_SHOWN = 3
"""Number of foreign files that an error message names."""


def refuse_foreign(folder: Path, planned: Iterable[str]) -> None:
    """Check that new predictions would replace no files but earlier predictions; nothing is changed.

    Args:
        folder: Need not exist.
        planned: Names of all files that may be written.

    Raises:
        ConfigError: If the folder holds files of these names that no earlier prediction wrote.
    """
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
    """Prepare a folder for new predictions: remove earlier ones, and list the new ones in the manifest.

    Args:
        folder: Created if it does not exist.
        planned: Names of all files that may be written.
        record: How the predictions are made; kept in the manifest.

    Raises:
        ConfigError: As `refuse_foreign`.
    """
    names = list(planned)
    refuse_foreign(folder, names)
    owned = _owned(folder)
    _write_manifest(folder, names, record)
    for name in owned - {MANIFEST}:
        (folder / name).unlink(missing_ok=True)


def list_written(folder: Path, planned: Iterable[str], record: Mapping[str, Any]) -> None:
    """Reduce the manifest to the files that were written."""
    _write_manifest(folder, (name for name in planned if (folder / name).exists()), record)


def _write_manifest(folder: Path, names: Iterable[str], record: Mapping[str, Any]) -> None:
    write_json(folder / MANIFEST, {**record, "files": sorted({MANIFEST, *names})})


def _owned(folder: Path) -> set[str]:
    """Return the names of the files that the manifest lists; none if there is no manifest, or it is not ours."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        names = {name for name in files if isinstance(name, str)}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return set()
    # Even if the manifest was edited, nothing outside the folder is removed.
    return {name for name in names if Path(name).name == name != ".."} if MANIFEST in names else set()
