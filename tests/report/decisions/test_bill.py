"""What a run costs: against sums by hand."""

from dataclasses import fields

import pytest

from fedloom.report.decisions.bill import bill
from fedloom.spec.prices import Prices

BUSY = {"north": 7200.0, "south": 1800.0}
ALL = {"watts_per_client": 100.0, "watts": {"south": 400.0}, "per_kwh": 0.5, "per_client_hour": 2.0, "per_gb": 0.1}


def test_hours_watts_and_bytes_times_their_prices():
    found = bill(BUSY, 3 * 10**9, 10**9, Prices(**ALL))
    assert found.kilowatt_hours == pytest.approx(2 * 0.1 + 0.5 * 0.4)
    assert (found.energy, found.machines, found.traffic) == pytest.approx((0.2, 5.0, 0.4))
    assert found.total == pytest.approx(5.6)
    assert found.missing == ()


def test_without_prices_there_are_hours_and_bytes_and_no_money():
    found = bill(BUSY, 10, 20, None)
    assert (found.busy_seconds, found.bytes_up, found.bytes_down) == (9000.0, 10, 20)
    assert {getattr(found, one) for one in ("kilowatt_hours", "energy", "machines", "traffic", "total")} == {None}
    assert found.missing == ("watts_per_client", "per_kwh", "per_client_hour", "per_gb")


@pytest.mark.parametrize("name", ["per_kwh", "per_client_hour", "per_gb"])
def test_a_price_that_is_missing_is_named_and_the_others_add_up(name):
    found = bill(BUSY, 10**9, 0, Prices(**{key: value for key, value in ALL.items() if key != name}))
    parts = [part for part in (found.energy, found.machines, found.traffic) if part is not None]
    assert found.missing == (name,)
    assert len(parts) == 2
    assert found.total == pytest.approx(sum(parts))


def test_energy_is_not_guessed_where_one_client_has_no_watts():
    found = bill(BUSY, 0, 0, Prices(watts={"south": 400.0}, per_kwh=0.5))
    assert found.kilowatt_hours is found.energy is None
    assert "watts_per_client" in found.missing
    assert set(Prices.model_fields) - {"currency", "watts"} == set(found.missing) | {"per_kwh"}
    assert "total" not in {one.name for one in fields(found)}
