"""The report of a study: one page that needs no network, with its tables, figures, examples and methods text."""

from micraframe.study.report.page import write_report

__all__ = ["write_report"]
