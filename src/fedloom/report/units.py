"""Numbers as people read them. Every function takes None for what was not measured and shows a dash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

MISSING = "–"
_BYTES = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Clock:
    """How a language writes spans of time."""

    seconds: str = "{seconds:.1f} s"
    minutes: str = "{minutes} min {seconds:02d} s"
    hours: str = "{hours} h {minutes:02d} min"
    hours_only: str = "{hours} h"


ENGLISH_CLOCK = Clock()


def bytes_text(count: float | None) -> str:
    """Bytes in the decimal unit that leaves three digits: 1234567 -> "1.23 MB"."""
    if count is None:
        return MISSING
    value, unit = float(count), 0
    while unit < len(_BYTES) - 1 and abs(value) >= 999.5:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{_three_digits(value)} {_BYTES[unit]}"


def seconds_text(seconds: float | None, clock: Clock = ENGLISH_CLOCK) -> str:
    """Seconds as "4.2 s", "3 min 07 s" or "2 h 05 min"."""
    if seconds is None or not isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return clock.seconds.format(seconds=seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return clock.minutes.format(minutes=minutes, seconds=rest)
    return clock.hours.format(hours=minutes // 60, minutes=minutes % 60)


def hours_text(seconds: float | None, clock: Clock = ENGLISH_CLOCK) -> str:
    """Seconds in hours with three digits, as hours are what is paid for: 4500 -> "1.25 h"; a minute or less as such."""
    if seconds is None or not isfinite(seconds) or seconds < 59.95:
        return seconds_text(seconds, clock)
    return clock.hours_only.format(hours=digits_text(seconds / 3600))


def energy_text(kilowatt_hours: float) -> str:
    """Energy in the unit that leaves three digits before a further one begins: 0.0123 -> "12.3 Wh"."""
    if abs(kilowatt_hours) < 1:
        return f"{digits_text(1000 * kilowatt_hours)} Wh"
    return f"{digits_text(kilowatt_hours)} kWh"


def money_text(amount: float, decimals: int) -> str:
    """An amount with the decimals of its currency; one that these would show as nothing has two digits."""
    if amount and abs(amount) < 10**-decimals:
        return digits_text(amount, 2)
    return f"{amount:,.{decimals}f}"


def loss_text(loss: float | None) -> str:
    """A loss in nats with three decimals; one that is not finite is named, not hidden."""
    if loss is None:
        return MISSING
    return f"{loss:.3f}" if isfinite(loss) else str(loss)


def score_text(score: float | None) -> str:
    """A score of 0 to 1 in percent with one decimal: 0.1234 -> "12.3"."""
    return MISSING if score is None else f"{100 * score:.1f}"


def change_text(before: float | None, after: float | None, factor: float = 1.0, decimals: int = 3) -> str:
    """The signed difference with a real minus sign: "−0.412"."""
    if before is None or after is None:
        return MISSING
    return f"{factor * (after - before):+.{decimals}f}".replace("-", "−")


def number_text(value: float | None) -> str:
    """A count with thin groups of three: 12345 -> "12,345"; other numbers with three digits."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def plural(count: int, one: str) -> str:
    """ "1 client", "2 clients"."""
    return f"{number_text(count)} {one}" if count == 1 else f"{number_text(count)} {one}s"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def digits_text(value: float, digits: int = 3) -> str:
    """Never as a power of ten: 1234.5 -> "1,234", 0.01234 -> "0.0123"."""
    if not value or not isfinite(value):
        return f"{value:g}"
    places = digits - 1 - floor(log10(abs(value)))
    return f"{value:,.{max(0, places)}f}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
