"""From a run directory to its report."""

from __future__ import annotations

from fedloom.report.page import page
from fedloom.report.summary import RunSummary, summarise
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file


def write_report(directory: RunDirectory) -> RunSummary:
    """Make report.html from the journal, for a run in progress too. Raises: RunError if it cannot be written."""
    summary = summarise(directory.experiment(), directory.journal.records())
    replace_file(directory.report, page(summary).encode(), intact="The run itself is intact", again="report again")
    return summary
