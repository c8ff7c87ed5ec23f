"""A real run that is rolled back and goes on: what clients keep, what they spent, and what is taken home."""

from __future__ import annotations

import json

import pytest

import fedloom
from fedloom.engine.control import ask
from fedloom.spec.load import parse
from fedloom.store.client_store import ClientStore
from fedloom.store.ledger import Ledger
from fedloom.store.requests import Request
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

PRIVATE = '\n[privacy]\nunit = "example"\ndelta = 1e-5\nnoise_multiplier = 2.0\n'


def ran(folder, method, extra=""):
    config = tiny_federation(folder, method=method, ranks=(2, 2), extra=extra)
    return fedloom.run(parse(config.read_text(), where=str(config), folder=folder), root=folder / "runs")


@pytest.mark.parametrize("method", mostly_slow(["fedsa", "fedalt"], "fedalt"))
def test_clients_go_on_from_what_they_kept_of_the_round_that_stays(method, tmp_path):
    result = ran(tmp_path, method)
    store = ClientStore(result.directory / "clients" / "site-1")
    kept = {round: store.load(round) for round in (1, 2, 3)}
    assert ask(result.directory, Request("back", "rollback", to=1))
    again = fedloom.resume(result.directory)
    now = {round: store.load(round) for round in store.rounds()}
    assert set(now) == {1, 2, 3}

    def same(round):
        return all(bool((tensor == now[round][name]).all()) for name, tensor in kept[round].items())

    assert [same(round) for round in (1, 2, 3)] == [True, False, False]
    assert again.digest != result.digest
    assert again.summary.federated_round == 3
    records = RunDirectory.open(result.directory).journal.records()
    assert not [record for record in records if record.kind in ("dropout", "refused")]
    assert fedloom.resume(result.directory).digest == again.digest


def test_what_a_client_spent_stays_spent(tmp_path):
    result = ran(tmp_path, "fedit", PRIVATE)
    ledger = Ledger(result.directory / "clients" / "site-0")
    before = ledger.path.read_bytes()
    ask(result.directory, Request("back", "rollback", to=1))
    fedloom.resume(result.directory)
    assert ledger.path.read_bytes().startswith(before)
    assert [entry.round for entry in ledger.entries()] == [1, 2, 3, 2, 3]
    lines = (result.directory / "journal.jsonl").read_text().splitlines()
    spent = [r["epsilon"] for r in map(json.loads, lines) if r["kind"] == "contribution" and r["client"] == "site-0"]
    assert len(spent) == 5
    assert spent == sorted(spent)
