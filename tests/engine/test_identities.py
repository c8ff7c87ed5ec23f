"""A client stays who it is, and notices a peer that is another than before."""

import pytest

from fedloom.engine.identities import Identities
from fedloom.errors import RunError


def test_an_identity_is_made_once_and_kept_to_its_owner(tmp_path):
    first, again = (Identities.of(tmp_path, "a") for _ in range(2))
    assert first.own == again.own
    assert first.own != Identities.of(tmp_path, "b").own
    assert (tmp_path / "a" / "identity").stat().st_mode & 0o777 == 0o600
    assert first.own.hex() not in repr(first)


def test_peers_are_remembered_and_never_replaced(tmp_path):
    Identities.of(tmp_path, "a").remember({"b": b"\x01" * 32})
    Identities.of(tmp_path, "a").remember({"b": b"\x02" * 32, "c": b"\x03" * 32})
    assert Identities.of(tmp_path, "a").known == {"b": b"\x01" * 32, "c": b"\x03" * 32}


def test_without_a_place_nothing_is_kept():
    one = Identities.of(None, "a")
    one.remember({"b": b"\x01" * 32})
    assert one.own != Identities.of(None, "a").own
    assert one.known == {}


@pytest.mark.parametrize(("name", "text"), [("identity", "short"), ("peers.json", "[1]"), ("peers.json", '{"b": "x"}')])
def test_damaged_files_are_errors(name, text, tmp_path):
    Identities.of(tmp_path, "a")
    (tmp_path / "a" / name).write_text(text)
    with pytest.raises(RunError, match=r"damaged|cannot be read"):
        Identities.of(tmp_path, "a")
