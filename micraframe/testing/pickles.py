"""Finds pickles: of any protocol, compressed or inside something else. Reading one can run code."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

_UNPACKED: Final = 1 << 26
"""Largest number of bytes that are unpacked."""


def holds_pickle(data: bytes) -> bool:
    """Return whether bytes are a pickle of any protocol, compressed or not, or hold one of protocol 2 to 5.

    What only looks like a pickle by chance, as a few numbers may, is too short to count.
    """
    return any(_is_pickle(plain) or _has_pickle(plain) for plain in (data, *_unpacked(data)))


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield what compressed data hold, and the files in an archive, such as those that torch.save writes."""
    with contextlib.suppress(zlib.error):
        yield zlib.decompressobj(47).decompress(data, _UNPACKED)  # zlib or gzip
    with contextlib.suppress(OSError, ValueError):
        yield bz2.BZ2Decompressor().decompress(data, _UNPACKED)
    with contextlib.suppress(lzma.LZMAError, EOFError):
        yield lzma.LZMADecompressor().decompress(data, _UNPACKED)
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.file_size <= _UNPACKED:
                yield archive.read(entry)


def _is_pickle(data: bytes) -> bool:
    """Return whether a pickle begins here, followed by no more than padding; older protocols have no mark."""
    length = _pickle_length(data, 0)
    return length >= 8 and not data[length:].strip(b"\0\n ")


def _has_pickle(data: bytes) -> bool:
    return any(_pickle_length(data, mark.start()) >= 16 for mark in re.finditer(rb"\x80[\x02-\x05]", data))


def _pickle_length(data: bytes, start: int) -> int:
    """Return the length of a pickle that begins at `start`, with a stack that adds up; 0 if there is none."""
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        pickletools.dis(stream, out=_Nowhere())
    except Exception:  # random bytes raise all kinds of errors
        return 0
    return stream.tell() - start


class _Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)
