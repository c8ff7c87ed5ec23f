"""The resident worker: real processes on a real socket, killed and restarted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedloom.aggregation.registry import method
from fedloom.engine.flower import mailbox
from fedloom.engine.flower.calls import ASSIGNMENT, DESCRIBE, HELLO, REFUSED, call
from fedloom.engine.flower.frames import framed, parts_of
from fedloom.engine.flower.mailbox import ask_worker
from fedloom.engine.flower.wire import Envelope
from fedloom.engine.flower.worker import Worker
from fedloom.engine.for_client import experiment_of
from fedloom.engine.member import Member
from fedloom.engine.sites import load_sites
from fedloom.errors import FedLoomError
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.description import description_from_bytes
from fedloom.rounds.state import RunState
from fedloom.rounds.wire import assignment_to_bytes, contribution_from_bytes
from fedloom.rounds.world import world_of
from fedloom.spec.dump import dump
from fedloom.training.memory import total_bytes
from fedloom.training.peak import can_reset

CLIENT = "site-0"


class Process:
    """A worker in a process of its own, in a directory that only we can enter."""

    def __init__(self, directory: Path, **config) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "token").write_bytes(b"secret")
        self.config = {"client": CLIENT, "store": str(directory / "store"), **config}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "fedloom.engine.flower.worker", str(self.directory), json.dumps(self.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, asked: Envelope, patience: float = 60) -> Envelope:
        return ask_worker(str(self.directory), asked, patience=patience)


@pytest.fixture(scope="module")
def common_worker(tmp_path_factory):
    # A socket's path may have 108 bytes, and pytest's folders are long.
    running = Process(Path(os.path.relpath(tmp_path_factory.mktemp("w"))))
    yield running
    running.kill()


@pytest.fixture
def worker(common_worker):
    """One for all tests, as a start takes seconds; who kills it need not start it again."""
    if common_worker.process.poll() is not None:
        common_worker.start()
    return common_worker


def assigned(pilot) -> tuple[Envelope, object]:
    """The call of the first round for one client, and its assignment."""
    sites = load_sites(pilot)
    chosen, world = method(pilot.method.name), world_of(pilot, sites.base.modules)
    state = RunState(chosen.init(world))
    assignment = next(training_assignments(pilot, chosen, world, state, [CLIENT]))
    run = dump(experiment_of(pilot, CLIENT))
    return call(ASSIGNMENT, client=CLIENT, run=run, body=framed([assignment_to_bytes(assignment)])), assignment


def test_it_says_who_it_is_and_what_it_has(worker, pilot):
    assert worker.ask(call(HELLO)).facts["client"] == CLIENT
    answer = worker.ask(call(DESCRIBE, client=CLIENT, run=dump(experiment_of(pilot, CLIENT))))
    description = description_from_bytes(answer.body)
    assert (description.client, description.train + description.held_out) == (CLIENT, 12)


def test_after_a_kill_the_same_call_gives_the_same_answer(worker, pilot):
    asked, assignment = assigned(pilot)
    first = contribution_from_bytes(parts_of(worker.ask(asked).body, 1)[0], start=assignment.start.trainable)
    worker.kill()
    worker.start()
    again = contribution_from_bytes(parts_of(worker.ask(asked).body, 1)[0], start=assignment.start.trainable)
    assert again.adapter.digest() == first.adapter.digest()


def test_a_worker_that_is_away_is_waited_for_and_then_named(worker):
    worker.ask(call(HELLO))
    worker.kill()
    began = time.monotonic()
    with pytest.raises(FedLoomError, match="worker is not there"):
        worker.ask(call(HELLO), patience=0.5)
    assert time.monotonic() - began >= 0.5


def test_who_does_not_know_the_token_gets_nothing(worker):
    worker.ask(call(HELLO))
    (worker.directory / "token").write_bytes(b"another")
    with pytest.raises(FedLoomError, match="another token"):
        worker.ask(call(HELLO))
    (worker.directory / "token").write_bytes(b"secret")
    assert worker.ask(call(HELLO)).facts["client"] == CLIENT


def test_more_memory_than_allowed_ends_the_worker_with_last_words(tmp_path):
    small = Process(Path(os.path.relpath(tmp_path / "w")), memory_bytes=1e6)
    assert small.process.wait(60) == 3
    assert "the site allows" in (small.directory / mailbox.LAST_WORDS).read_text()


def test_the_socket_is_for_its_user_alone(worker):
    worker.ask(call(HELLO))
    assert (worker.directory / "socket").stat().st_mode & 0o077 == 0


class Counting(Member):
    """A member that counts how often it trained."""

    answers = 0

    def answer(self, *arguments, **named) -> bytes:
        self.answers += 1
        return super().answer(*arguments, **named)


def test_a_call_that_is_repeated_is_not_trained_again(pilot, tmp_path):
    asked, _ = assigned(pilot)
    member = Counting(tmp_path)
    resident = Worker({"client": CLIENT}, member)
    first, again = resident.answer(asked), resident.answer(asked)
    assert REFUSED not in first.facts
    assert (again, member.answers) == (first, 1)
    resident.answer(Envelope({**asked.facts, "more": 1}, asked.body))
    assert (member.answers, member.loads) == (2, 1)


@pytest.mark.parametrize("alone", [True, False])
def test_only_a_process_of_one_client_says_how_much_memory_its_training_took(alone, pilot, tmp_path):
    asked, assignment = assigned(pilot)
    answer = Worker({"client": CLIENT}, Member(tmp_path, alone=alone)).answer(asked)
    metrics = contribution_from_bytes(parts_of(answer.body, 1)[0], start=assignment.start.trainable).metrics
    measured = metrics.get("memory_bytes")
    if alone and can_reset():
        assert 1e7 < measured <= total_bytes()
    else:
        assert measured is None


def test_an_idle_worker_frees_its_base_and_loads_it_again(pilot, tmp_path):
    asked, _ = assigned(pilot)
    member = Counting(tmp_path)
    resident = Worker({"client": CLIENT}, member, idle=0.0)
    first = resident.answer(asked)
    assert resident.rest()
    assert not member._bases
    assert REFUSED not in first.facts | resident.answer(asked).facts
    assert member.loads == 2
    assert not Worker({}, member, idle=60.0).rest()


def test_calls_that_are_none_are_answered_with_a_reason(pilot, tmp_path):
    resident = Worker({"client": CLIENT}, Member(tmp_path))
    for asked in (
        Envelope({}),
        Envelope({"protocol": 99}),
        call("dance"),
        call(DESCRIBE, client=CLIENT, run="]["),
        call(DESCRIBE, client="somebody"),
        call(DESCRIBE, client=CLIENT, run=dump(experiment_of(pilot, CLIENT)), labels="]"),
    ):
        assert resident.answer(asked).facts[REFUSED]


def test_a_fault_of_the_worker_is_an_answer_and_not_its_end(pilot, tmp_path, capsys):
    class Broken(Member):
        def describe(self, *_):
            raise ZeroDivisionError("by nought")

    asked = call(DESCRIBE, client=CLIENT, run=dump(experiment_of(pilot, CLIENT)))
    refused = Worker({"client": CLIENT}, Broken(tmp_path)).answer(asked).facts[REFUSED]
    assert "ZeroDivisionError at the client: by nought" in refused
    assert "Traceback" in capsys.readouterr().err


def test_the_base_stays_for_another_experiment_on_the_same_model(pilot, tmp_path):
    """Training a client alone is another experiment, and no reason to load the base again."""
    member = Member(tmp_path)
    changed = pilot.model_copy(update={"training": pilot.training.model_copy(update={"local_steps": 9})})
    member.describe(pilot, CLIENT)
    member.describe(changed, CLIENT)
    assert member.loads == 1
    longer = pilot.model_copy(update={"training": pilot.training.model_copy(update={"max_tokens": 64})})
    member.describe(longer, CLIENT)
    assert member.loads == 2
