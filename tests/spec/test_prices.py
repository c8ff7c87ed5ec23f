"""The file of prices: read, and refused with every problem at once."""

import pytest

from fedloom.errors import ConfigError
from fedloom.spec.prices import Prices, load_prices

GOOD = """
[prices]
currency = "JPY"
watts_per_client = 65
per_kwh = 31.5
watts = { north = 300.0 }
"""


@pytest.fixture
def read(tmp_path):
    def call(text):
        path = tmp_path / "prices.toml"
        path.write_text(text, encoding="utf-8")
        return load_prices(path, ("north", "south"))

    return call


def test_a_client_may_have_watts_of_its_own(read):
    found = read(GOOD)
    assert found == Prices(currency="JPY", watts_per_client=65, per_kwh=31.5, watts={"north": 300.0})
    assert (found.watts_of("north"), found.watts_of("south")) == (300.0, 65.0)
    assert Prices().watts_of("south") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[prices]\nper_kwh = -1", "at least 0"),
        ("[prices]\nper_kwh = inf", "line 2"),
        ("[prices]\nper_gb = 'much'", "a number"),
        ("[prices]\nper_gbyte = 1", "unknown key"),
        ("[prices]\nwatts = { north = -5.0 }", "prices.watts.north"),
        ("[prices]\nwatts = { nort = 5.0 }", "prices.watts.nort: the run has no such client; it has north, south"),
        ("[prices]\nper_gb = nan", "expected a finite number, found nan"),
        ("[prices]\ncurrency = ''", "currency: expected at least 1 character, found"),
        ("[price]\nper_gb = 1", "unknown key"),
        ("", "missing"),
        ("per_kwh", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(read, text, told):
    with pytest.raises(ConfigError, match=told):
        read(text)


def test_all_problems_come_at_once(read):
    with pytest.raises(ConfigError, match="2 problems"):
        read("[prices]\nper_kwh = -1\nper_gb = 'much'")
