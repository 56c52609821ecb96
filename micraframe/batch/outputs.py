"""The folder that `predict` writes to: which files in it are its own, and which it must not touch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from micraframe.errors import ConfigError
from micraframe.runtime.files import write_json

MANIFEST: Final = "predict.json"
"""What made the predictions in a folder, and the names of their files."""

_SHOWN = 3
"""Names of foreign files in an error message."""


def claim(folder: Path, planned: Iterable[str], record: Mapping[str, Any]) -> None:
    """Prepare a folder for new predictions: remove earlier ones, and write the manifest.

    Args:
        folder: Created if it does not exist.
        planned: Names of all files that may be written.
        record: What makes the predictions; kept in the manifest.

    Raises:
        ConfigError: If the folder holds files of these names that no earlier prediction wrote. Nothing is changed.
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
    write_manifest(folder, names, record)
    for name in owned - {MANIFEST}:
        (folder / name).unlink(missing_ok=True)


def write_manifest(folder: Path, names: Iterable[str], record: Mapping[str, Any]) -> None:
    """Write which files in a folder are predictions, and what made them."""
    write_json(folder / MANIFEST, {**record, "files": sorted({MANIFEST, *names})})


def _owned(folder: Path) -> set[str]:
    """Return the names of the files that the manifest lists; none if there is no manifest, or it is not ours."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        names = {name for name in files if isinstance(name, str)}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return set()
    # Whatever a manifest lists, nothing outside the folder is removed.
    return {name for name in names if Path(name).name == name != ".."} if MANIFEST in names else set()
