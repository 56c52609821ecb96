"""Measures the speed of micraframe and others, prints one table, and writes `results.json` and the README's table.

python -m benchmarks.speed                       # everything
python -m benchmarks.speed --only maps,masks     # keeps the other groups' results
python -m benchmarks.speed --quick               # tiny, to see that everything runs; writes nothing
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch

from benchmarks.speed import report
from benchmarks.speed.report import GROUPS
from benchmarks.speed.timing import Record, Settings, Unavailable


def main() -> None:
    """Measure the requested groups."""
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, with commas: " + ", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two repeats; nothing is written")
    parser.add_argument("--repeats", type=int, help="repeats of each route (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="where the results go")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := sorted(set(chosen) - set(GROUPS)):
        parser.error(f"expected groups from {', '.join(GROUPS)}, got {', '.join(unknown)}")
    torch.set_num_threads(arguments.threads)
    settings = Settings(arguments.repeats or (2 if arguments.quick else 5), arguments.quick, arguments.device)

    found: dict[str, list[Record]] = {}
    for group in (name for name in GROUPS if name in chosen):
        print(f"{group} ...", file=sys.stderr)
        module, function = GROUPS[group].split(":")
        try:
            found[group] = getattr(importlib.import_module(f"benchmarks.speed.{module}"), function)(settings)
        except Unavailable as reason:
            print(f"{group} is skipped: {reason}", file=sys.stderr)
            continue
        if not settings.quick:
            report.update(arguments.output, group, found[group], settings)
    report.show(found)
    if arguments.output == report.RESULTS and not settings.quick:
        report.rewrite_readme()


if __name__ == "__main__":
    main()
