"""Self-contained HTML reports."""

from foveal.evaluation.report.page import ReportEntry, write_report

__all__ = ["ReportEntry", "write_report"]
