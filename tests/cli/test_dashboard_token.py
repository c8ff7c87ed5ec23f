"""The token of the dashboard in a file."""

import pytest

from fedloom.cli.dashboard import token_of
from fedloom.errors import RunError


def test_it_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    made = token_of(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert token_of(path) == made == path.read_text()
    assert token_of(None) != token_of(None)


@pytest.mark.parametrize(("text", "mode", "said"), [("x" * 40, 0o644, "others can read"), ("short", 0o600, "no token")])
def test_one_that_others_read_or_that_is_none_is_refused(tmp_path, text, mode, said):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(RunError, match=said):
        token_of(path)
