"""Finds the files of a dataset: in the user's folder, or downloaded once and kept.

    DIGITS = RemoteFile("t10k-labels-idx1-ubyte.gz", "https://.../t10k-labels-idx1-ubyte.gz", "sha256:f7ae...")
    (path,) = fetch([DIGITS], root=None, terms=TERMS)

With a `root`, the files must be there and no request leaves the machine. Without one, what is missing is downloaded,
after the licence and the citation are printed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from micraframe.datasets.paths import resolve
from micraframe.errors import DataError, reason_of

CACHE: Final = "MICRAFRAME_DOWNLOADS"
"""The environment variable that names the folder of downloads; by default it is in the user's cache."""


@dataclass(frozen=True)
class Terms:
    """What to know before using a dataset.

    Attributes:
        dataset: The dataset's component name, also the name of its folder of downloads.
        licence: Licence of the data.
        citation: What to cite for the data.
        page: Address of the page from which a person gets the data.
    """

    dataset: str
    licence: str
    citation: str
    page: str


@dataclass(frozen=True)
class RemoteFile:
    """A file or folder of a dataset, and where it can be downloaded.

    Attributes:
        name: Its path below the dataset's folder.
        url: Its public address, or that of the archive that it is in.
        checksum: Of the download: `sha256:` or `md5:` and hexadecimal digits. Empty where the publisher gives none;
            then the download's SHA-256 is printed.
        archive: Whether the address is that of a zip or tar file (`.zip`, `.tar`, `.tar.gz`), which is unpacked into
            the dataset's folder and holds this path. Files of one address are downloaded together.
        other_names: Other paths under which a user's folder may hold it, such as that of the unpacked file.
    """

    name: str
    url: str
    checksum: str = ""
    archive: bool = False
    other_names: tuple[str, ...] = ()


def fetch(files: Sequence[RemoteFile], root: Path | None, terms: Terms) -> tuple[Path, ...]:
    """Return the paths of a dataset's files, downloading those that are missing if no folder is given.

    Args:
        files: The files; each may be a folder.
        root: The folder that holds them, to which nothing is written; None: the folder of downloads.
        terms: Printed before a download; name the dataset in errors.

    Raises:
        DataError: If a file is not in `root`, has no public address, or cannot be downloaded; the message says where
            to get it and where to put it.
    """
    folder = root or downloads() / terms.dataset
    missing = [file for file in files if _find(file, folder) is None]
    if missing and root:
        listed = ", ".join(file.name for file in missing)
        raise DataError(f"{root}: expected the files of {terms.dataset}, found no {listed}; {_by_hand(terms)}")
    if missing:
        _download(missing, folder, terms)
    return tuple(_existing(file, folder, terms) for file in files)


def root_of(text: str) -> Path | None:
    """Return the folder that a dataset's parameter `root` names, for `fetch`; None if it is empty.

    Raises:
        ConfigError: If it begins with `$MICRAFRAME_DATA` and that variable is not set.
    """
    return resolve(text) if text else None


def downloads() -> Path:
    """Return the folder of downloads: `$MICRAFRAME_DOWNLOADS`, or `micraframe/datasets` in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or cache / "micraframe" / "datasets").expanduser()


def _find(file: RemoteFile, folder: Path) -> Path | None:
    paths = (folder / name for name in (file.name, *file.other_names))
    return next((path for path in paths if path.exists()), None)


def _existing(file: RemoteFile, folder: Path, terms: Terms) -> Path:
    path = _find(file, folder)
    if path is None:
        raise DataError(f"{file.url}: expected {file.name} in this archive, found none; {_by_hand(terms)}")
    return path


def _by_hand(terms: Terms) -> str:
    return f"get the data from {terms.page} and set root to the folder that holds it"


def _download(missing: Sequence[RemoteFile], folder: Path, terms: Terms) -> None:
    addresses = {file.url: file for file in missing}
    sys.stderr.write(
        f"{terms.dataset}: downloading {', '.join(addresses)} to {folder}\n"
        f"  licence: {terms.licence}\n  please cite: {terms.citation}\n"
    )
    for url, file in addresses.items():
        try:
            if file.archive:
                _unpack(file, folder)
            else:
                _retrieve(file, folder / file.name)
        # No connection or no space; a wrong checksum; a broken archive.
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
            raise DataError(f"{url}: cannot be downloaded ({reason_of(error)}); {_by_hand(terms)}") from error


def _retrieve(file: RemoteFile, path: Path) -> None:
    """Download to a path; pooch writes to a temporary file first and compares checksums."""
    import pooch

    pooch.retrieve(file.url, file.checksum or None, path.name, path.parent, progressbar=sys.stderr.isatty())


def _unpack(file: RemoteFile, folder: Path) -> None:
    """Download an archive and move its content into the folder; after an interruption it starts again."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".archive.") as temporary:
        archive = Path(temporary) / file.url.rpartition("/")[2]
        content = Path(temporary) / "content"
        _retrieve(file, archive)
        # The filter refuses paths outside the folder; zip files are read without such paths in any case.
        shutil.unpack_archive(archive, content, filter=None if archive.suffix == ".zip" else "data")
        for part in content.iterdir():
            target = folder / part.name
            if not target.exists():
                part.replace(target)
