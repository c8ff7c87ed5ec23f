"""From a run directory to its report."""

from __future__ import annotations

from pathlib import Path

from fedloom.evaluation.shares import TokenShares
from fedloom.report.explain import explain_page
from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.language import Language
from fedloom.report.page import page
from fedloom.report.summary import RunSummary, summarise
from fedloom.spec.prices import Prices
from fedloom.store.durable import cannot_write, make_directory
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file


def write_report(directory: RunDirectory, language: Language = ENGLISH, prices: Prices | None = None) -> RunSummary:
    """Make the report from the journal, for a run in progress too. Raises: RunError if it cannot be written."""
    summary = summarise(directory.experiment(), directory.journal.records())
    written = page(summary, language, prices).encode()
    path = report_path(directory, language)
    replace_file(path, written, intact="The run itself is intact", again="report again")
    return summary


def report_path(directory: RunDirectory, language: Language) -> Path:
    """report.html in English; report.ja.html beside it in Japanese, so that neither replaces the other."""
    english = directory.report
    return english if language.code == ENGLISH.code else english.with_suffix(f".{language.code}{english.suffix}")


def write_explanation(run: Path, found: TokenShares) -> Path:
    """Make explain/CLIENT.html of a run; returns where it is. Raises: RunError if it cannot be written."""
    path, intact, again = run / "explain" / f"{found.client}.html", "The run itself is intact", "explain again"
    data = explain_page(found).encode()
    try:
        make_directory(path.parent)
    except OSError as error:
        raise cannot_write(error, path.parent, needed_bytes=len(data), intact=intact, again=again) from error
    replace_file(path, data, intact=intact, again=again)
    return path
