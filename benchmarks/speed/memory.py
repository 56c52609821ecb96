"""The peak memory of this process. Imports nothing heavy, which would count."""

from __future__ import annotations

import re
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak() -> float:
    """Return the peak of resident memory in MiB.

    On Linux the kernel reports the peak of the current address space. The portable `ru_maxrss` is inherited through
    `fork` and `exec`, so that the child of a large process would report that process's peak.
    """
    if STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(peak())
