"""fedloom resume: go on with a run from its last committed round."""

from __future__ import annotations

from fedloom.cli.console import Run
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome

NAME = "resume"


def command(run: Run) -> None:
    """Go on with a run that was interrupted, from its last committed round."""
    with live_view() as observe:
        from fedloom.engine.run import resume

        result = resume(run, observe=observe)
    show_outcome(result)
