"""Pieces on a disk, by their digests."""

import hashlib

import pytest

from fedloom.errors import RunError
from fedloom.store.piece_store import PieceStore


def test_a_piece_is_found_by_its_digest(tmp_path):
    store = PieceStore(tmp_path / "pieces")
    assert not list(store)
    digest = store.put(b"some numbers")
    assert digest == hashlib.sha256(b"some numbers").hexdigest()
    assert (store[digest], digest in store, list(store)) == (b"some numbers", True, [digest])
    assert "0" * 64 not in store


def test_a_damaged_piece_cannot_be_got_and_is_put_again(tmp_path):
    store = PieceStore(tmp_path)
    digest = store.put(b"some numbers")
    (tmp_path / f"{digest}.safetensors").write_bytes(b"some numberz")
    assert store.get(digest) is None
    store.put(b"some numbers")
    assert store[digest] == b"some numbers"


def test_only_what_is_named_stays(tmp_path):
    store = PieceStore(tmp_path)
    kept, gone = store.put(b"kept"), store.put(b"gone")
    (tmp_path / f".{gone}.safetensors.tmp-999999999").write_bytes(b"half")
    (tmp_path / "other.txt").write_text("not ours")
    store.keep_only({kept})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{kept}.safetensors", "other.txt"])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        PieceStore(tmp_path / "file" / "pieces").put(b"some numbers")
