"""From a run directory to its report."""

from __future__ import annotations

from fedloom.report.page import page
from fedloom.report.summary import RunSummary, summarise
from fedloom.store.run_directory import RunDirectory


def write_report(directory: RunDirectory) -> RunSummary:
    """Make report.html from the journal, for a run in progress too."""
    summary = summarise(directory.experiment(), directory.journal.records())
    directory.report.write_text(page(summary), encoding="utf-8")
    return summary
