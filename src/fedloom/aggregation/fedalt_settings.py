"""The settings of fedalt: how much is borrowed, from whom, and how the two branches are weighed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedloom.aggregation.world import Choosing, Mixing


@dataclass(frozen=True)
class Settings:
    """How much is borrowed, from whom, and how the two branches are weighed."""

    combine: Literal["exact", "factors"] = field(
        default="exact",
        metadata={
            "choices": ("exact", "factors"),
            "help": "exact: the mean of the others' deltas, at the client's rank; factors: the means of their factors",
        },
    )
    mixer: Literal["learned", "static", "sum"] = field(
        default="learned",
        metadata={
            "choices": ("learned", "static", "sum"),
            "help": "learned: for each token and module; static: share and 1 - share; sum: both branches whole",
        },
    )
    share: float = field(
        default=0.9,
        metadata={
            "above": 0.0,
            "below": 1.0,
            "needs": {"mixer": ("learned", "static")},
            "help": "of the own branch: of a static mixture, or where a learned one begins (the paper's: 0.5)",
        },
    )
    own: Literal["whole", "share"] = field(
        default="whole",
        metadata={
            "choices": ("whole", "share"),
            "needs": {"mixer": ("learned", "static")},
            "help": "whole: the own branch is divided by share, so that it counts whole at first, as in round 1; "
            "share: it counts its share, as in the paper",
        },
    )
    mixer_rate: float = field(
        default=1.0,
        metadata={
            "above": 0.0,
            "needs": {"mixer": ("learned",)},
            "help": "learning rate of mixers, as a multiple of that of factors",
        },
    )
    train_rest: bool = field(
        default=False,
        metadata={"help": "also train what is borrowed; each client for a round, as the next brings it anew"},
    )
    refresh: int = field(default=1, metadata={"minimum": 1, "help": "rounds between two refreshes of what is borrowed"})
    max_age: int | None = field(
        default=None,
        metadata={"minimum": 0, "help": "rounds after which an absent client's contribution is dropped; none: never"},
    )
    neighbours: int | None = field(
        default=None,
        metadata={"minimum": 1, "help": "borrow only from so many clients, the most similar ones; none: from all"},
    )
    borrow: Literal["fixed", "chosen"] = field(
        default="fixed",
        metadata={
            "choices": ("fixed", "chosen"),
            "help": "fixed: what is borrowed counts 1 - share, or 1 (sum); chosen: 0 (alone), 0.1, 0.3 or 1, as each "
            "client chooses before each training by its losses on rows of the round",
        },
    )
    borrow_rows: int = field(
        default=16,
        metadata={
            "minimum": 1,
            "needs": {"borrow": ("chosen",)},
            "help": "rows to choose by: the first batches of the round that have so many, read once for each amount",
        },
    )
    borrow_decay: float = field(
        default=0.5,
        metadata={
            "minimum": 0.0,
            "maximum": 1.0,
            "needs": {"borrow": ("chosen",)},
            "help": "what the losses of a round still count in the choice of the next",
        },
    )


def mixing_of(settings: Settings) -> Mixing:
    """How both branches are weighed."""
    whole = settings.own == "whole"
    return Mixing(settings.mixer, settings.share, settings.train_rest, settings.mixer_rate, whole)


def choosing_of(settings: Settings) -> Choosing | None:
    """That clients choose how much they borrow; None where it is fixed."""
    return Choosing(settings.borrow_rows, settings.borrow_decay) if settings.borrow == "chosen" else None


def individuals(settings: Settings) -> str:
    """Why the server must see each client's factors with these settings, in words; empty: it need not."""
    asked = {"max_age": settings.max_age, "neighbours": settings.neighbours}
    named = [f"{key} = {value}" for key, value in asked.items() if value is not None]
    named += [f"refresh = {settings.refresh}"] if settings.refresh > 1 else []
    return f"{' and '.join(named)} need{'' if len(named) > 1 else 's'} each client's last adapter" if named else ""


def reads(settings: Settings) -> str:
    """What clients read their rows for besides training, in words; empty: nothing."""
    return 'borrow = "chosen" chooses by losses on rows' if settings.borrow == "chosen" else ""
