"""A run with two rounds, an adapter and a ledger that the journal knows of, without a model."""

from __future__ import annotations

import pytest

from fedloom.privacy.accounting import Spending
from fedloom.privacy.ledger import Entry
from fedloom.store.exported import file_digests
from fedloom.store.ledger import Ledger


@pytest.fixture
def release(run):
    """release(round): what a private client and the server write down of one contribution."""

    def released(round, client="a"):
        ledger = Ledger(run.clients / client)
        head, epsilon = ledger.head, 1.0 * round
        entry = Entry(round, f"{round}" * 64, Spending(1.5, 0.125, 3), 1e-5)
        ledger.release(entry, b"answer", epsilon=epsilon, rows=40)
        said = {"noise_multiplier": 1.5, "sampling_rate": 0.125, "delta": 1e-5, "epsilon": epsilon}
        run.journal.append("contribution", round=round, client=client, **said, ledger=head)

    return released


@pytest.fixture
def finished(run, commit, release):
    """The path of a run that has ended."""
    for round in (1, 2):
        release(round)
        commit(round)
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"numbers")
    run.journal.append("run_finished", rounds=2, digest="d" * 64, files=file_digests(run.adapter))
    run.close()
    return run.path
