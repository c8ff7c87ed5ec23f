"""Which clients may not take part, by what the journal says: shut out by an operator or a rule, until let in again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedloom.spec.experiment import Experiment

LATE = "late"  # a client that nobody waited for any longer
LATE_DROPPED = "late_dropped"  # its answer, which was to be taken when it came, and does not count
EXCLUDED, READMITTED = "excluded", "readmitted"


def excluded_clients(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """client -> why it is shut out now.

    records: of the whole journal, also of rounds that were rolled back: what was decided about a client holds on.
    "excluded" has round, client, by ("operator" or the name of a rule) and reason; "readmitted" has round, client, by.
    """
    out: dict[str, str] = {}
    for record in records:
        if record["kind"] == EXCLUDED:
            out[record["client"]] = record["reason"]
        elif record["kind"] == READMITTED:
            out.pop(record["client"], None)
    return out


def comings(experiment: Experiment, round: int) -> dict[str, list[str]]:
    """For the journal: who joins with this round, who has left before it, and who is away in it; what is empty is left
    out. In the first round of a run nobody joins or leaves."""
    there, before = ({client.name for client in experiment.present(each)} for each in (round, round - 1))
    known = {client.name for client in experiment.active}
    found = {"away": sorted(known - there)}
    if round > experiment.first_round:
        found |= {"joined": sorted(there - before), "left": sorted(before - there)}
    return {word: names for word, names in found.items() if names}
