"""The HTML report: one file with everything in it."""

from foveal.evaluation.report.page import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
