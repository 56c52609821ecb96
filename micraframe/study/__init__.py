"""Datasets x methods x seeds: the comparison that a lab makes before it pays for annotation."""

from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, plan
from micraframe.study.run import run_study, write_results
from micraframe.study.status import status

__all__ = ["StudyFolder", "StudyRun", "plan", "run_study", "status", "write_results"]
