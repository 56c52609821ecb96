"""How the report writes numbers, lists, annotations and names of files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

UNKNOWN = "n/a"

_ANNOTATIONS = {
    "image-level": ("image-level labels", ""),
    "full": ("full annotation", ""),
    "polygons": ("polygons", " px"),
    "altered": ("imprecise outlines", " px"),
    "dilated": ("dilated outlines", " px"),
}
"""What core's annotators produce, and the unit of their parameters; other annotators keep their names."""


def annotation_text(annotator: str) -> str:
    """Return an annotation in words.

    Args:
        annotator: As in the tables of a study: `altered sigma=2, 25 images`.

    Returns:
        `imprecise outlines (sigma = 2 px, 25 images)`.
    """
    parts = re.fullmatch(r"([^ ,]*) ?(.*?)(?:, (\d+) images)?", annotator, re.DOTALL)
    assert parts, "matches any text without a space at its start"
    name, parameters, images = parts.groups()
    phrase, unit = _ANNOTATIONS.get(name, (name, ""))
    details = [f"{key} = {value}{unit}" for key, value in re.findall(r"(\w+)=(.*?)(?= \w+=|$)", parameters)]
    details += [count_text(int(images), "image")] if images else []
    return f"{phrase} ({', '.join(details)})" if details else phrase


def number_text(value: float, digits: int = 3) -> str:
    """Return a number with this many decimals; `n/a` for NaN."""
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def percent_text(share: float) -> str:
    """Return a share in whole per cent; `n/a` for NaN."""
    return UNKNOWN if math.isnan(share) else f"{100 * share:.0f} %"


def interval_text(low: float, high: float) -> str:
    """Return an interval in brackets; empty where it is undefined."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.3f}, {high:.3f}]"


def change_text(value: float) -> str:
    """Return a difference with its sign."""
    return UNKNOWN if math.isnan(value) else f"{value:+.3f}"


def significant_text(value: float) -> str:
    """Return a number with three significant digits and no exponent; `n/a` for NaN."""
    if math.isnan(value):
        return UNKNOWN
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


def p_text(p: float) -> str:
    """Return a p value as `p = 0.0123`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {number_text(p, 4)}"


def seconds_text(seconds: float) -> str:
    """Return a duration in a suitable unit."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural: `1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Return names as a sentence lists them: `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    # After a semicolon, a comma-like pause before "and" is idiomatic too.
    last = " and " if separator == ", " else f"{separator}and "
    return f"{separator.join(names[:-1])}{last}{names[-1]}"


def slugs(names: Sequence[str]) -> list[str]:
    """Return a name for files and anchors for each name: lower-case letters, digits and hyphens, all different."""
    found: list[str] = []
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
        while slug in found:
            slug += "-2"
        found.append(slug)
    return found
