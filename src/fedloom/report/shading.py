"""Colours of shares: blue where the rest of the world outweighs a client's own adapter, orange where it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedloom.report.style import ACCENT, LIGHT, WARM

EVEN = 0.5
LEAST_SPAN = 0.05  # a difference from one half below which nothing is drawn in full colour
STRONGEST = 0.75  # of full colour, so that ink stays readable on it, on a light page and on a dark one


@dataclass(frozen=True)
class Shading:
    """span: how far from one half a share is drawn strongest."""

    span: float

    def colour(self, share: float) -> str:
        """Of which of the two, as "#rrggbb"."""
        return ACCENT if share > EVEN else WARM

    def strength(self, share: float) -> float:
        """0 (even) to STRONGEST: how opaque the colour is."""
        return STRONGEST * min(1.0, abs(share - EVEN) / self.span)

    def css(self, share: float) -> str:
        """The colour with its opacity, over whatever the page is."""
        red, green, blue = _parts(self.colour(share))
        return f"rgb({red} {green} {blue} / {100 * self.strength(share):.0f}%)"

    def on_white(self, share: float) -> str:
        """The same over white, for a terminal whose background nobody knows: with black ink."""
        strength = self.strength(share)
        mixed = (
            round(strength * over + (1 - strength) * under)
            for over, under in zip(_parts(self.colour(share)), _parts(LIGHT), strict=True)
        )
        return "#" + "".join(f"{part:02x}" for part in mixed)


def shading_of(shares: Iterable[float]) -> Shading:
    """So that the share that is farthest from one half is drawn strongest."""
    return Shading(max([LEAST_SPAN, *(abs(share - EVEN) for share in shares)]))


def _parts(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def percent(share: float) -> str:
    """A share of 0 to 1 as whole percent, without the sign."""
    return f"{100 * share:.0f}"


def visible(token: str) -> str:
    """A token with its blanks to be seen."""
    marks = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
    return "".join(marks.get(letter, letter if letter.isprintable() else "�") for letter in token) or "∅"
