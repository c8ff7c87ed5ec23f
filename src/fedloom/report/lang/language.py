"""One language of a report: its sentences, and how it writes numbers, dates and units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedloom.report.units import (
    MISSING,
    Clock,
    bytes_text,
    change_text,
    energy_text,
    hours_text,
    loss_text,
    money_text,
    number_text,
    score_text,
    seconds_text,
)

_WITHOUT_DECIMALS = frozenset({"JPY", "KRW", "VND"})


@dataclass(frozen=True)
class Language:
    """A language is called with the key of a sentence and what its placeholders stand for.

    code: as in the lang attribute of HTML.  messages: key -> sentence with {named} placeholders.
    moment: year, month, day and clock of a date.  joined: several names -> one text.
    money: amount and currency.  currencies: what this language calls a currency, where that is not its code.
    between: what stands between two sentences.
    """

    code: str
    messages: Mapping[str, str]
    clock: Clock
    moment: str
    joined: Callable[[Sequence[str]], str]
    money_form: str
    currencies: Mapping[str, str]
    between: str

    def __call__(self, key: str, /, **values: object) -> str:
        """The sentence. Raises: KeyError for a key that is not in the catalogue or a placeholder without a value."""
        return self.messages[key].format(**values)

    def has(self, key: str) -> bool:
        return key in self.messages

    def count(self, key: str, count: int, /, **values: object) -> str:
        """The sentence of KEY.one or KEY.other, with the number as {count}."""
        return self(f"{key}.{'one' if count == 1 else 'other'}", count=self.number(count), **values)

    def number(self, value: float | None) -> str:
        return number_text(value)

    def bytes(self, count: float | None) -> str:
        return bytes_text(count)

    def seconds(self, seconds: float | None) -> str:
        return seconds_text(seconds, self.clock)

    def hours(self, seconds: float | None) -> str:
        return hours_text(seconds, self.clock)

    def energy(self, kilowatt_hours: float | None) -> str:
        return MISSING if kilowatt_hours is None else energy_text(kilowatt_hours)

    def loss(self, loss: float | None) -> str:
        return loss_text(loss)

    def score(self, score: float | None) -> str:
        return score_text(score)

    def change(self, before: float | None, after: float | None, factor: float = 1.0, decimals: int = 3) -> str:
        return change_text(before, after, factor, decimals)

    def listed(self, names: Sequence[str]) -> str:
        return self.joined(names)

    def money(self, amount: float | None, currency: str) -> str:
        """currency: a code of ISO 4217, or any other name."""
        if amount is None:
            return MISSING
        number = money_text(amount, 0 if currency.upper() in _WITHOUT_DECIMALS else 2)
        return self.money_form.format(amount=number, currency=self.currencies.get(currency.upper(), currency))

    def date(self, time: str) -> str:
        """ "2026-11-20T10:00:01+00:00" in the form of the language, in UTC; other forms as they are."""
        day, separator, clock = time.partition("T")
        parts = day.split("-")
        if not separator or len(parts) != 3 or not clock.endswith(("Z", "+00:00")):
            return time
        year, month, date = parts
        return self.moment.format(
            year=year, month=month, day=date, short_month=month.lstrip("0"), short_day=date.lstrip("0"), clock=clock[:5]
        )
