"""Journals as a run writes them, small and exact."""

from itertools import count

import pytest

from fedloom.spec.experiment import Experiment

RANKS = {"north": 8, "south": 4}
LOSSES = {("base", 0): 3.0, ("round", 1): 2.5, ("round", 2): 2.0, ("final", 2): 2.0, ("alone", 2): 2.2}


class Journal(list):
    """Records with numbers and times of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)

    def add(self, kind, **fields):
        number = next(self._numbers)
        self.append({"number": number, "time": f"2026-11-20T10:00:{number:02d}+00:00", "kind": kind, **fields})


@pytest.fixture
def experiment():
    """Two clients of unequal rank, two rounds."""
    return Experiment.model_validate(
        {
            "name": "trial",
            "training": {"rounds": 2},
            "clients": [{"name": name, "rank": rank, "data": f"{name}.jsonl"} for name, rank in RANKS.items()],
        }
    )


def _evaluate(journal, stage, round_):
    for place, name in enumerate(RANKS):
        fields = {"loss": LOSSES[stage, round_] + place, "label_tokens": 100, "rows": 10}
        if stage != "round":
            fields |= {"rouge1": 0.1 * round_ + 0.1 * (stage == "final"), "generated_rows": 4}
        journal.add("evaluation", stage=stage, round=round_, client=name, **fields)


def _one_round(journal, round_):
    journal.add("round_started", round=round_, participants=list(RANKS))
    for name, rank in RANKS.items():
        journal.add("contribution", round=round_, client=name, examples=16, bytes_down=rank * 1000, bytes_up=rank * 500,
                    seconds=2.0, tokens=400, loss=2.9 - round_ / 10, update_norm=0.5)  # fmt: skip
    journal.add("round_committed", round=round_, digest=f"{round_}" * 64, seconds=5.0, contributions=2,
                details={"loom.compression_error": 0.25})  # fmt: skip
    _evaluate(journal, "round", round_)


@pytest.fixture
def journal():
    """A finished run with baselines and one question."""
    records = Journal()
    clients = {
        name: {"rank": rank, "scaling": 2.0, "train_rows": 90, "held_out_rows": 10, "dropped_rows": 1}
        for name, rank in RANKS.items()
    }
    records.add("run_started", name="trial", method="loom", base="tiny", base_digest="ab" * 32, task="generation",
                dtype="float32", clients=clients, modules=7, versions={"fedloom": "0.1.0"}, threads=1)  # fmt: skip
    _evaluate(records, "base", 0)
    records.add("answer", stage="base", question="What is up?", text="No idea.")
    for round_ in (1, 2):
        _one_round(records, round_)
    _evaluate(records, "final", 2)
    _evaluate(records, "alone", 2)
    records.add("answer", stage="final", question="What is up?", text="The sky.")
    records.add(
        "run_finished", rounds=2, digest="cd" * 32, seconds=75.0, peak_memory_bytes=1_500_000_000, adapter="adapter"
    )
    return records
