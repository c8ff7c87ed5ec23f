"""The trunk in pieces over a run: fewer bytes, the same model whichever way a client came to it, nothing assumed."""

import shutil
from dataclasses import replace

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.forming import PLACE
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import loop_of
from fedloom.engine.run import resume, run
from fedloom.engine.sites import lasting_facts, load_sites
from fedloom.errors import RunError
from fedloom.rounds.messages import Contribution
from fedloom.spec.dump import dump
from fedloom.spec.load import load
from fedloom.store.piece_store import PieceStore
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine
from fedloom.testing.engine import pretend_experiment as experiment_of
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


class Watching(PretendEngine):
    """Notes the assignments, as the server made them."""

    def exchange(self, assignments):
        def noted():
            for assignment in assignments:
                seen.append(assignment)
                yield assignment

        yield from super().exchange(noted())


seen: list = []


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


@pytest.mark.parametrize("method", ["loom", "flora", "fedex"])
def test_no_trunk_travels_and_what_was_confirmed_is_not_sent_again(make_loop, method):
    loop = make_loop(experiment_of(method), Watching(NAMES))
    drive(loop)
    assert all(not assignment.start.trunk for assignment in seen)
    trained = [assignment for assignment in seen if assignment.kind == "train" and assignment.round > 1]
    assert all(assignment.pieces for assignment in trained)
    for assignment in trained:
        assert assignment.has == {piece.digest for piece in assignment.pieces}, "it was measured just before"


@pytest.mark.parametrize("method", ["fedit", "ffa", "fedsa", "hetlora"])
def test_other_methods_send_no_pieces(make_loop, method):
    drive(make_loop(experiment_of(method), Watching(NAMES)))
    assert not any(assignment.pieces for assignment in seen)


def test_a_client_that_does_not_confirm_is_sent_everything(make_loop):
    def silent(assignment, contribution):
        return contribution

    loop = make_loop(experiment_of("loom"), Watching(NAMES, change=silent))
    loop = replace(loop, engine=replace(loop.engine, store=None))
    drive(loop)
    assert not any(assignment.has for assignment in seen)
    assert not any("holds" in record for record in kinds(loop, "contribution"))


def test_a_confirmation_of_something_else_is_not_believed(make_loop):
    class Lying(Watching):
        def exchange(self, assignments):
            for reply in super().exchange(assignments):
                lie: Contribution = replace(reply.contribution, holds="everything")
                yield replace(reply, contribution=lie)

    drive(make_loop(experiment_of("loom"), Lying(NAMES)))
    assert not any(assignment.has for assignment in seen)


def test_what_was_confirmed_is_known_after_a_stop(make_loop):
    loop = make_loop(experiment_of("loom"), last_round=2)
    drive(loop)
    loop.directory.close()
    seen.clear()
    again = make_loop(experiment_of("loom"), Watching(NAMES))
    drive(again)
    assert any(assignment.has for assignment in seen if assignment.round == 3)


def test_pieces_that_were_lost_at_the_server_are_made_anew_and_journaled(make_loop):
    loop = make_loop(experiment_of("loom"), last_round=2)
    drive(loop)
    shutil.rmtree(loop.directory.pieces.directory)
    loop.directory.close()
    again = make_loop(experiment_of("loom"))
    state = drive(again)
    assert [record["round"] for record in kinds(again, "pieces_made_anew")] == [2]
    assert state.round == 4


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    return load(tiny_federation(tmp_path_factory.mktemp("sites")))


@pytest.fixture(scope="module")
def undisturbed(pilot, tmp_path_factory):
    return run(pilot, root=tmp_path_factory.mktemp("undisturbed"))


def down(directory):
    return sum(record["bytes_down"] for record in directory.journal.records() if record.kind == "contribution")


@pytest.mark.parametrize("damage", mostly_slow(["lost", "damaged"], "damaged"))
def test_a_client_that_lacks_a_piece_is_sent_all_and_ends_with_the_same_digest(pilot, undisturbed, tmp_path, damage):
    def disturb(event):
        if getattr(event, "kind", "") == "round_committed" and event.fields["round"] == 2:
            pieces = PieceStore(tmp_path / pilot.name / "clients" / PLACE)
            for digest in pieces:
                path = pieces.directory / f"{digest}.safetensors"
                path.unlink() if damage == "lost" else path.write_bytes(b"not what it was")

    result = run(pilot, root=tmp_path, observe=disturb)
    assert result.digest == undisturbed.digest
    again = [record for record in RunDirectory.open(result.directory).journal.records() if record.kind == "asked_again"]
    assert again
    assert all("not here" in record["reason"] for record in again)


def test_a_stopped_run_goes_on_to_the_same_digest(pilot, undisturbed, tmp_path):
    def stop(event):
        if getattr(event, "kind", "") == "round_committed" and event.fields["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pilot, root=tmp_path, observe=stop)
    shutil.rmtree(tmp_path / pilot.name / "clients")
    assert resume(tmp_path / pilot.name).digest == undisturbed.digest


def test_a_client_without_any_place_trains_the_same(pilot, undisturbed, tmp_path):
    """All pieces come with every assignment then."""
    sites = load_sites(pilot)
    with RunDirectory.create(tmp_path / "run", dump(pilot), lasting_facts(sites)) as directory:
        state = drive(loop_of(pilot, directory, LocalEngine(sites)))
        assert state.learned.delta().digest() == undisturbed.digest
        assert down(directory) > down(RunDirectory.open(undisturbed.directory))


def test_a_damaged_piece_at_the_server_says_what_to_do(make_loop):
    loop = make_loop(experiment_of("loom"), last_round=2)
    drive(loop)
    for digest in loop.directory.pieces:
        (loop.directory.pieces.directory / f"{digest}.safetensors").write_bytes(b"not what it was")
    loop.directory.close()
    again = make_loop(experiment_of("loom"))
    again.holds.clear()
    with pytest.raises(RunError, match="damaged or missing at the server"):
        drive(again)
