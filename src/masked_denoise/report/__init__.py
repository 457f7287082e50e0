"""Pictures to look at: one self-contained HTML page with sliders, and pictures side by side."""

from .page import ReportEntry, write_report
from .panel import display, side_by_side

__all__ = ["ReportEntry", "display", "side_by_side", "write_report"]
