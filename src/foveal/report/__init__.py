"""The HTML report: one file with everything in it."""

from foveal.report.page import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
