"""Going back: later rounds are moved, never deleted, and the journal says where to."""

import pytest

from fedloom.errors import RunError
from fedloom.store import rollback
from fedloom.store.run_directory import RunDirectory


@pytest.fixture
def rolled(run, commit):
    """rolled(to): go back from round 3."""

    def back(to):
        for round in range(run.latest() + 1, 4):
            commit(round)
        return rollback.roll_back(run.path, run.journal.records(), to, run.journal.append, reason="r")

    return back


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_later_rounds_are_moved_whole(run, commit, rolled):
    digests = [commit(round) for round in (1, 2, 3)]
    before = files(run.path / "rounds" / "0003")
    (run.path / "adapter").mkdir()
    (run.path / "adapter" / "weights").write_bytes(b"w")
    assert rolled(1) == 1
    moved = run.path / "rolled-back" / "1"
    assert files(moved / "0003") == before
    assert (moved / "adapter" / "weights").read_bytes() == b"w"
    assert run.latest() == 1
    assert run.committed() == {1: digests[0]}
    first, last = run.journal.records()[-2:]
    assert (first["round"], first["lost"], first["by"], first["branch"]) == (1, [2, 3], "operator", 1)
    assert (first["moved"], last["names"]) == ("rolled-back/1", ["0002", "0003", "adapter"])


def test_each_rollback_is_a_branch_of_its_own(run, rolled):
    assert [rolled(1), rolled(2), rolled(0)] == [1, 2, 3]
    names = {
        entry.name: sorted(each.name for each in entry.iterdir()) for entry in (run.path / "rolled-back").iterdir()
    }
    assert names == {"1": ["0002", "0003"], "2": ["0003"], "3": ["0001", "0002", "0003"]}
    assert run.latest() == 0


def test_a_disk_that_does_not_move_leaves_it_to_the_next_process(run, rolled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollback, "publish", full)
    with pytest.raises(RunError, match="The run has gone back; nothing is lost"):
        rolled(2)
    assert run.latest() == 2
    monkeypatch.undo()
    run.close()
    with RunDirectory.open(run.path, to_write=True) as again:
        assert again.latest() == 2
        assert again.journal.records()[-1]["names"] == ["0003"]
    with RunDirectory.open(run.path, to_write=True) as once_more:
        assert len(once_more.journal.records()) == len(again.journal.records())


def test_a_branch_that_was_thrown_away_moves_nothing_more(run, commit, rolled, tmp_path):
    rolled(2)
    (run.path / "rolled-back").rename(tmp_path / "trash")
    commit(3)
    run.close()
    with RunDirectory.open(run.path, to_write=True) as again:
        assert again.latest() == 3
