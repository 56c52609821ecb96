"""Datasets x contenders x seeds: the comparison that a lab makes before it pays for annotation."""

from micraframe.study.plan import Cell, plan
from micraframe.study.run import run_study

__all__ = ["Cell", "plan", "run_study"]
