"""fedloom report: make the HTML report of a run."""

from __future__ import annotations

from fedloom.cli.console import Run, console

NAME = "report"


def command(run: Run) -> None:
    """Write report.html of a run, finished or in progress, and print its tables."""
    from fedloom.cli.outcome import show_tables
    from fedloom.report.write import write_report
    from fedloom.store.run_directory import RunDirectory

    directory = RunDirectory.open(run)
    show_tables(write_report(directory))
    console.print(f"Report: {directory.report}")
