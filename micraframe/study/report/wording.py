"""Numbers and names as the report writes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from micraframe.study.report.results import Hours

UNKNOWN = "n/a"


def number_text(value: float, digits: int = 3) -> str:
    """Return a number with so many decimals; `n/a` for NaN."""
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def interval_text(low: float, high: float) -> str:
    """Return an interval in brackets; nothing where there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.3f}, {high:.3f}]"


def change_text(value: float) -> str:
    """Return a difference with its sign."""
    return UNKNOWN if math.isnan(value) else f"{value:+.3f}"


def hours_text(value: float) -> str:
    """Return hours with three significant digits and no exponent."""
    if math.isnan(value):
        return UNKNOWN
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


def range_text(hours: Hours) -> str:
    """Return the range of an annotator's time; nothing where low and high are the same."""
    return "" if hours.low == hours.high else f"({hours_text(hours.low)} to {hours_text(hours.high)})"


def p_text(p: float) -> str:
    """Return a p value as `p = 0.0123`; the least that 10 000 resamples can give is 0.0001."""
    return "p n/a" if math.isnan(p) else f"p = {p:.4f}"


def axis_name(metric: str) -> str:
    """Return a metric's name for an axis."""
    return f"{metric.replace('_', ' ')}, mean over images and 95 % interval"


def seconds_text(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Return names as a sentence has them: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
