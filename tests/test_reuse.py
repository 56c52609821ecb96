from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest

from micraframe import reuse
from micraframe.reuse import release_blocks, reused_blocks

BLOCK = 64 << 20
"""Bytes that glibc, left to itself, gives back to the system as soon as they are free."""

PAGES = BLOCK // resource.getpagesize()


def faults() -> int:
    """Return how many pages the system has to give for a block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * BLOCK
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left alone")
def test_blocks_are_reused():
    with reused_blocks():
        faults()
        assert faults() < PAGES / 10
        with reused_blocks():
            assert faults() < PAGES / 10
        assert faults() < PAGES / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left alone")
def test_blocks_can_be_released_between():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    with reused_blocks():
        faults()
        before = resident()
        release_blocks()
        assert before - resident() > PAGES / 2


def test_an_error_ends_it_too():
    def fails() -> None:
        with reused_blocks():
            assert reuse._depth == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert reuse._depth == 0
