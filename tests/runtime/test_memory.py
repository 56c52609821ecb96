from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from micraframe.runtime import memory
from micraframe.runtime.memory import return_freed_memory, reuse_freed_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left alone")

SETUP = """
import resource
from pathlib import Path
from micraframe.runtime.memory import return_freed_memory, reuse_freed_memory

BLOCK = 64 << 20  # which glibc, by default, returns to the system as soon as it is freed
PAGES = BLOCK // resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * BLOCK
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
"""


def run(code: str) -> None:
    """Run code in a process of its own: what other tests have left in the heap decides what is reused."""
    subprocess.run([sys.executable, "-c", SETUP + code], check=True)


@GLIBC
def test_memory_is_reused():
    run("""
with reuse_freed_memory():
    faults()
    assert faults() < PAGES / 10
    with reuse_freed_memory():
        assert faults() < PAGES / 10
    assert faults() < PAGES / 10
""")


@GLIBC
def test_memory_can_be_returned_in_between():
    run("""
with reuse_freed_memory():
    faults()
    before = resident()
    return_freed_memory()
    assert before - resident() > PAGES / 2
""")


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
