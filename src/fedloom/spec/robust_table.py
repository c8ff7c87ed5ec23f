"""What a user asks for against clients that send what harms the others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.spec.table import Table

RobustRule = Literal["none", "cosine", "krum", "multi-krum", "geometric-median", "trimmed-mean"]


class RobustTable(Table):
    """What a client that sends something odd, by fault or on purpose, can do to all others."""

    enabled: bool = Field(
        False, description="hold all contributions of a round back, compare them, and bound what each can do"
    )
    max_norm_ratio: float = Field(
        1.5,
        gt=0,
        description="a client's change (of its delta, of what is added up, of its head) is scaled down to so many "
        "times the median of all",
    )
    drop_norm_ratio: float = Field(
        5.0,
        ge=0,
        description="a client whose change is longer than so many times the median and points away from what the "
        "others changed is left out of the round; 0: nobody is",
    )
    rule: RobustRule = Field(
        "none",
        description="besides: none; cosine drops those that point away from the others; krum keeps one client, "
        "multi-krum all but max_bad; geometric-median weighs clients by how near they are to the middle; trimmed-mean "
        "leaves out the max_bad largest and smallest of every number (equal ranks, methods that average factors)",
    )
    max_bad: int = Field(1, ge=1, description="how many clients of a round may be malicious, for rules that ask for it")
    suspicious_above: float = Field(
        6.0, gt=0, description="a client whose anomaly score (a robust z-score, averaged over rounds) is above it is so"
    )
    quarantine_after: int = Field(
        3, ge=0, description="rounds in a row after which a suspicious client is shut out of the run; 0: never"
    )
