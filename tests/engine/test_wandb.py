"""What Weights & Biases itself writes offline, read back from its file."""

import json

import pytest

from fedloom.engine.trackers import opened
from fedloom.report.points import Point

pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
pytestmark = pytest.mark.slow

HEADER, BLOCK, PREFIX = 7, 32768, 7  # bytes: of the file, of a block, and of what stands before a part of a record
FULL, LAST = 1, 4


def records_of(path):
    """The records of a .wandb file: LevelDB's log format after a header of its own."""
    data, at, parts = path.read_bytes(), HEADER, b""
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < PREFIX:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + PREFIX : at + PREFIX + length]
        at += PREFIX + length
        if kind in (FULL, LAST):
            yield pb.Record.FromString(parts)
            parts = b""


def rows_of(folder):
    """Every logged row of the one run in the folder: name -> number."""
    (path,) = folder.rglob("*.wandb")
    history = [record.history.item for record in records_of(path) if record.WhichOneof("record_type") == "history"]
    rows = [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in history]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def test_every_round_is_in_its_file_once_and_nothing_is_sent(tmp_path):
    for _ in range(2):
        tracker = opened("wandb", tmp_path, "pilot")
        tracker.write([Point("mean/held_out/loss", 0, 3.25)])
        tracker.write([Point("mean/held_out/loss", 1, 2.5), Point("site-0/train/loss", 1, 2.75)])
        tracker.close()
    assert rows_of(tmp_path) == [
        {"round": 0, "mean/held_out/loss": 3.25},
        {"round": 1, "mean/held_out/loss": 2.5, "site-0/train/loss": 2.75},
    ]
    assert [path.name.split("-")[0] for path in tmp_path.rglob("*run-*") if path.is_dir()] == ["offline"]
