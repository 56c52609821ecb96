"""Writes what the conformance kit checks, and which check catches which wrong component, into docs/conformance.md.

.venv/bin/python tests/testing/conformance_page.py    # rewrites what is between marks
"""

from __future__ import annotations

import re
from pathlib import Path

from wrong_components import ROWS

from micraframe.plugin import KINDS
from micraframe.testing import TRIALS
from micraframe.testing.report import Trial

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def render(text: str) -> str:
    """Return the page with what is between marks written again."""
    for mark, table in (("checks", checks()), ("wrong components", wrong_components())):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}\n{t}\n{m[2]}", text, flags=re.DOTALL
        )
    return text


def checks() -> str:
    """Return a table of the checks of every kind, then of each kind; those of every kind are not repeated."""
    shared = Trial.checks()
    parts = [_table("every kind", "check | promise", [(f"`{each.name}`", each.promise) for each in shared])]
    for kind in KINDS:
        own = [each for each in TRIALS[kind].checks() if each not in shared]
        parts.append(_table(kind, "check | promise", [(f"`{each.name}`", each.promise) for each in own]))
    return "\n".join(parts)


def wrong_components() -> str:
    """Return a table of the wrong components of each kind."""
    return "\n".join(
        _table(
            kind,
            f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} that ... | is caught by",
            [(row.what, f"`{row.check}`") for row in ROWS if row.kind == kind],
        )
        for kind in KINDS
    )


def _table(title: str, head: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join(
        [f"### {title.capitalize()}\n", f"| {head} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    )


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
