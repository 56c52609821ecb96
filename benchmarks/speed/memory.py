"""The most memory that this process ever took. Imports nothing heavy, which would count."""

from __future__ import annotations

import re
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak() -> float:
    """Return the most MiB of memory that were resident at a time.

    On Linux the kernel is asked for the peak of what is mapped now. `ru_maxrss`, which is portable, would not do: it is
    inherited through `fork` and `exec`, so that a child of a large process has that one's peak for its own.
    """
    if STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(peak())
