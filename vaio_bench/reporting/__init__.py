"""The HTML report: one self-contained page from run folders, nothing else.

Named `reporting` because `vaio_bench.report` is the function.
"""

from __future__ import annotations

from vaio_bench.reporting.page import Report, report

__all__ = ["Report", "report"]
