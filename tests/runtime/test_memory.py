from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest

from micraframe.runtime import memory
from micraframe.runtime.memory import return_freed_memory, reuse_freed_memory

BLOCK = 64 << 20
"""Bytes that glibc, by default, returns to the system as soon as they are freed."""

PAGES = BLOCK // resource.getpagesize()


def faults() -> int:
    """Return how many pages the system has to map for a block."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * BLOCK
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left alone")
def test_memory_is_reused():
    with reuse_freed_memory():
        faults()
        assert faults() < PAGES / 10
        with reuse_freed_memory():
            assert faults() < PAGES / 10
        assert faults() < PAGES / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left alone")
def test_memory_can_be_returned_in_between():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    with reuse_freed_memory():
        faults()
        before = resident()
        return_freed_memory()
        assert before - resident() > PAGES / 2


def test_an_error_ends_it_and_outside_nothing_is_returned(monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        with reuse_freed_memory():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    calls: list[str] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: calls.append(name))
    return_freed_memory()
    assert calls == []
