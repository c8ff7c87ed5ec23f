"""What a private client answers, and what its ledger says by then; crashes, other questions, lost ledgers."""

from dataclasses import replace

import pytest

import fedloom
from fedloom.aggregation.registry import method
from fedloom.engine.client_half import ClientHalf
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import load_sites
from fedloom.errors import JournalDamagedError, RunError
from fedloom.privacy.accounting import epsilon_of
from fedloom.privacy.ledger import spent
from fedloom.rounds.assign import training_assignment
from fedloom.rounds.messages import Dropout
from fedloom.rounds.state import RunState
from fedloom.rounds.wire import assignment_to_bytes, contribution_from_bytes
from fedloom.rounds.world import world_of
from fedloom.store.ledger import Ledger
from fedloom.testing.federation import tiny_federation

PRIVACY = '[privacy]\nunit = "example"\nepsilon = 8\ndelta = 1e-3\n'


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    return fedloom.load(tiny_federation(folder, rows=40, method="ffa", ranks=(4, 4), extra=PRIVACY))


@pytest.fixture(scope="module")
def sites(experiment):
    return load_sites(experiment)


@pytest.fixture
def asked(experiment, sites):
    """The assignment of round 1 for site-0."""
    world, ffa = world_of(experiment, sites.base.modules), method("ffa")
    return training_assignment(experiment, ffa, world, RunState(ffa.init(world)), "site-0")


@pytest.fixture
def client(sites, tmp_path):
    return ClientHalf(sites, store=tmp_path)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "site-0")


def ask(client, assignment):
    return client.answer(assignment_to_bytes(assignment))


def test_an_answer_is_in_the_ledger_and_tells_nothing_but_noise_and_time(client, asked, ledger, sites):
    answer = ask(client, asked)
    (entry,) = ledger.entries()
    assert (entry.round, entry.spending.steps, entry.delta) == (1, 3, 1e-3)
    contribution = contribution_from_bytes(answer, start=asked.start.trainable, head=asked.head)
    assert set(contribution.metrics) == {
        *("seconds", "steps", "epsilon", "delta", "noise_multiplier", "sampling_rate", "max_example_norm")
    }
    assert contribution.metrics["epsilon"] == pytest.approx(epsilon_of([entry.spending], 1e-3))
    assert contribution.metrics["sampling_rate"] == 4 / len(sites.site("site-0").train)
    assert contribution.adapter.digest() != asked.start.trainable.digest()


def test_the_same_question_gets_the_same_bytes_and_costs_nothing(client, asked, ledger):
    first = ask(client, asked)
    assert ask(client, asked) == first
    assert len(ledger.entries()) == 1


def test_a_line_that_a_crash_kept_from_the_ledger_is_written_before_the_answer_is_sent(
    client, asked, ledger, monkeypatch
):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(client, asked)
    (put_away,) = (path.read_bytes() for path in ledger.directory.glob("answer-*"))
    assert ledger.entries() == []
    assert ask(client, asked) == put_away
    assert ask(client, asked) == put_away
    assert len(ledger.entries()) == 1


def test_nothing_is_in_the_ledger_that_was_not_put_away(client, asked, ledger, monkeypatch):
    def full(*_, **__):
        raise RunError("the disk is full")

    monkeypatch.setattr("fedloom.store.ledger.replace_file", full)
    with pytest.raises(RunError, match="full"):
        ask(client, asked)
    assert ledger.entries() == []


def test_another_question_about_the_same_round_is_a_release_of_its_own(client, asked, ledger):
    first = ask(client, asked)
    other = ask(client, replace(asked, seed=asked.seed + 1, work=replace(asked.work, privacy=roomy(asked))))
    entries = ledger.entries()
    assert other != first
    assert [entry.round for entry in entries] == [1, 1]
    assert epsilon_of(spent(entries), 1e-3) > epsilon_of(spent(entries[:1]), 1e-3)


def roomy(asked):
    """A promise that has room for more."""
    return replace(asked.work.privacy, epsilon=50.0, noise_multiplier=0.56)


def test_the_first_question_asked_again_after_another_costs_again(client, asked, ledger):
    """Its bytes are gone: whatever a client cannot repeat is new noise on the same rows."""
    ample = replace(asked, work=replace(asked.work, privacy=roomy(asked)))
    first = ask(client, ample)
    ask(client, replace(ample, round=2, kept_round=1))
    assert ask(client, ample) != first
    assert len(ledger.entries()) == 3


def test_other_rows_are_another_question(client, asked, ledger, sites):
    ample = replace(asked, work=replace(asked.work, privacy=roomy(asked)))
    first = ask(client, ample)
    changed = replace(sites, by_client={"site-0": replace(sites.site("site-0"), digest="other rows")})
    assert ask(replace(client, sites=changed), ample) != first
    assert len(ledger.entries()) == 2


def test_an_edited_ledger_stops_the_client(client, asked, ledger):
    ask(client, asked)
    text = ledger.path.read_text()
    ledger.path.write_text(text.replace('"steps": 3', '"steps": 1'))
    with pytest.raises(JournalDamagedError, match=r"ledger\.jsonl, line 1"):
        ask(client, asked)
    with pytest.raises(JournalDamagedError, match=r"ledger\.jsonl, line 1"):
        ask(client, replace(asked, round=2, kept_round=1))


def test_a_lost_ledger_stops_the_client(client, asked, ledger):
    ask(client, asked)
    ledger.path.unlink()
    with pytest.raises(RunError, match=r"lacks a round.*a release in round 1, found no release at all"):
        ask(client, replace(asked, round=2, kept_round=1))


def test_more_than_the_run_promises_is_refused_before_anything_is_trained(client, asked, ledger, monkeypatch):
    for round in (1, 2, 3):
        ask(client, replace(asked, round=round, kept_round=round - 1))
    before = ledger.path.read_bytes()
    monkeypatch.setattr("fedloom.engine.client_half.train_privately", None)
    with pytest.raises(RunError, match=r"'site-0', round 3.*does not allow this round.*noise: 0\."):
        ask(client, replace(asked, round=3, kept_round=3, seed=1))
    with pytest.raises(RunError, match=r"does not allow the 2 rounds to come.*noise: 0\."):
        ask(client, replace(asked, round=2, kept_round=3, seed=1))
    assert ledger.path.read_bytes() == before


def test_more_rounds_than_the_budget_allows_are_refused_with_those_that_are_left(client, asked, ledger):
    """The noise of a run of three rounds was too little for a run that goes on to six."""
    ask(client, asked)
    longer = replace(asked.work.privacy, rounds=6, noise_multiplier=0.56)
    with pytest.raises(RunError, match=r"does not allow the 5 rounds to come.*noise: 2\."):
        ask(client, replace(asked, round=2, kept_round=1, work=replace(asked.work, privacy=longer)))
    assert len(ledger.entries()) == 1


def test_a_site_has_a_budget_of_its_own(client, asked, ledger):
    careful = replace(client, budget=6.0)
    ask(careful, asked)
    with pytest.raises(RunError, match=r"at most 6 \(privacy.epsilon of site.toml\), found 5.4\d+ spent in 1 rounds"):
        ask(careful, replace(asked, round=2, kept_round=1))
    assert len(ledger.entries()) == 1


def test_a_site_with_a_budget_trains_never_without_noise(client, asked, ledger):
    """Whatever the experiment said that it agreed to."""
    bare = replace(asked, work=replace(asked.work, privacy=None))
    with pytest.raises(RunError, match=r"without noise.*privacy.epsilon of site.toml is 6"):
        ask(replace(client, budget=6.0), bare)
    assert "loss" in contribution_from_bytes(ask(client, bare), start=asked.start.trainable, head={}).metrics
    assert ledger.entries() == []


def test_without_a_place_for_the_ledger_nothing_is_sent(sites, asked):
    with pytest.raises(RunError, match="no place for the privacy ledger"):
        ask(ClientHalf(sites), asked)


def test_a_client_that_fails_quotes_no_loss(sites, asked, tmp_path):
    wild = replace(asked, work=replace(asked.work, learning_rate=1e38))
    (answer,) = LocalEngine(sites, store=tmp_path).exchange([wild])
    assert isinstance(answer, Dropout)
    assert "finite" in answer.reason
    assert "loss " not in answer.reason
    assert "inf" not in answer.reason.replace("finite", "")
    assert not (tmp_path / "site-0" / "ledger.jsonl").exists()
