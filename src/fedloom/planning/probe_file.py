"""What `fedloom probe` found out about one client: a value, and as JSON the file that it writes.

It tells of the rows only how many there are, and how many are about how long: no bucket stands for fewer than
FEWEST rows, unless there are fewer in all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedloom.errors import PlanError
from fedloom.planning.files import read, written
from fedloom.planning.plan import MOST, Amount, Bits, Count, Name, Value
from fedloom.planning.values import Architecture, Machine, Memory, Speed

FEWEST = 5  # rows of a bucket
EDGES = tuple(2**power for power in range(4, 25))  # tokens: 16, 32, 64, ..
Number = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Bucket(Value):
    """So many rows have more tokens than the bucket before allows, and at most up_to."""

    up_to: Count
    rows: Count


Histogram = tuple[Bucket, ...]


class Rows(Value):
    """A client's rows. lengths: of the training rows, in tokens as they are cut for training.  learned: tokens of
    them that are learned from; empty for a classifier, where it is one label a row."""

    train: Number
    held_out: Number
    dropped: Number
    lengths: Histogram
    learned: Histogram

    @model_validator(mode="after")
    def _rising(self) -> Rows:
        for buckets in (self.lengths, self.learned):
            if any(one.up_to >= other.up_to for one, other in pairwise(buckets)):
                raise ValueError("the lengths of a histogram do not rise")
            if any(bucket.rows < FEWEST for bucket in buckets[1:]):
                raise ValueError(f"a bucket stands for fewer than {FEWEST} rows")
        return self


class BaseFacts(Value):
    """Which base was measured. identity: its id, or the name of its folder.  digest: of its weights.
    architecture: digest of what planning knows of it."""

    identity: Name
    digest: Name
    architecture: Name
    dtype: Name


class SpeedFacts(Value):
    """As of `values.Speed`."""

    bits: Bits
    forward_seconds: Amount
    backward_seconds: Amount
    weights_seconds: Amount


class MemoryFacts(Value):
    """As of `values.Memory`."""

    runtime_bytes: Amount
    block_values: Amount
    score_values: Amount
    logit_bytes: Amount
    input_values: Amount
    rank_values: Amount
    quantized_bytes: Amount
    quantized_values: Amount


class MachineFacts(Value):
    """As of `values.Machine`, without its memory and its connection."""

    speeds: Annotated[tuple[SpeedFacts, ...], Field(min_length=1)]
    memory: MemoryFacts
    compute_bytes: Literal[2, 4]
    batch_seconds: Amount
    module_seconds: Amount
    product_seconds: Amount
    label_seconds: Amount
    few_seconds: Amount = 0.0  # probes of earlier versions did not tell it apart, nor the next one
    attention_seconds: Amount = 0.0
    optimizer_seconds: Amount


class Loading(Value):
    """What it took to load the base at some bits: a peak of its own, often above that of small batches."""

    bits: Bits
    seconds: Amount
    peak_bytes: Amount


class Unavailable(Value):
    """Bits that this machine cannot hold the base in, and why."""

    bits: Literal[8, 4]
    reason: Name


class Bandwidth(Value):
    """Bytes per second to and from the server. source: "declared" by whoever ran the probe; nothing was measured.
    server, connect_seconds: the address, and how long a connection to it took, where one was tried."""

    source: Literal["declared"]
    upload: Positive | None
    download: Positive | None
    server: Name | None
    connect_seconds: Amount | None


class Calibrated(Value):
    """How well the coefficients fit: the largest |predicted / measured - 1|.

    memory_by: how peak memory was read, see `training.peak`.  assumed: coefficients that the trials do not tell.
    stopped: why there were no more trials; None where all were made.
    """

    trials: Count
    memory_by: Name
    memory_error: Amount
    seconds_error: Amount
    assumed: tuple[Name, ...]
    stopped: str | None


class Probe(Value):
    """memory: in bytes, of the GPU where there is one; available: when the probe began, within what the site allows.
    seconds: the probe took."""

    format: Literal[1]
    client: Name
    base: BaseFacts
    machine: MachineFacts
    memory_total: Count
    memory_available: Count
    cores: Count
    device: Name
    versions: dict[str, str]
    loading: Annotated[tuple[Loading, ...], Field(min_length=1)]
    unavailable: tuple[Unavailable, ...]
    rows: Rows
    bandwidth: Bandwidth | None
    calibrated: Calibrated
    seconds: Amount

    def measured_machine(self) -> Machine:
        """What plans are made from; a connection that nobody told anything about does not count."""
        found = self.machine
        known = self.bandwidth
        return Machine(
            memory_bytes=float(self.memory_available),
            speeds=tuple(Speed(**dict(speed)) for speed in found.speeds),
            memory=Memory(**dict(found.memory)),
            upload_bandwidth=(known and known.upload) or float("inf"),
            download_bandwidth=(known and known.download) or float("inf"),
            **{name: value for name, value in found if name not in ("speeds", "memory")},
        )


def facts_of(machine: Machine) -> MachineFacts:
    """What the file says of a machine."""
    values = asdict(machine)
    names = set(MachineFacts.model_fields) - {"speeds", "memory"}
    speeds = tuple(SpeedFacts(**speed) for speed in values["speeds"])
    memory = MemoryFacts(**values["memory"])
    return MachineFacts(speeds=speeds, memory=memory, **{name: values[name] for name in names})


def architecture_digest(architecture: Architecture) -> str:
    """SHA-256 of all that costs are computed from."""
    text = json.dumps(asdict(architecture), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def histogram(lengths: Iterable[int]) -> Histogram:
    """Buckets with fixed edges. One with fewer than FEWEST rows counts with the next longer one that has rows; the last
    one, if it is short of rows, takes those of the one before."""
    buckets: list[Bucket] = []
    known, waiting, before = sorted(lengths), 0, 0
    for edge in EDGES:
        rows = sum(1 for length in known if before < length <= edge)
        before, waiting = edge, waiting + rows
        if rows and waiting >= FEWEST:
            buckets.append(Bucket(up_to=edge, rows=waiting))
            waiting = 0
    if waiting:
        last = buckets.pop() if buckets else None
        top = next(edge for edge in EDGES if edge >= known[-1])
        buckets.append(Bucket(up_to=top, rows=waiting + (last.rows if last else 0)))
    return tuple(buckets)


def to_json(probe: Probe) -> str:
    """Canonical: sorted keys, no spaces."""
    return written(probe)


def from_json(text: str, where: object = "probe") -> Probe:
    """Raises: PlanError naming the field that is missing, unknown or cannot be."""
    return read(Probe, text, where=where, do="Run fedloom probe again: the file was changed, or is of another version")


def require_base(probe: Probe, digest: str, architecture: Architecture, *, where: object) -> None:
    """Raises: PlanError for a probe of a base with other weights, or of other layers of it."""
    wanted = architecture_digest(architecture)
    if (probe.base.digest, probe.base.architecture) != (digest, wanted):
        same = probe.base.digest == digest
        raise PlanError(
            "the probe measured other layers of the base" if same else "the probe measured another base",
            where=where,
            expected=f"digest {(wanted if same else digest)[:12]}",
            found=f"digest {(probe.base.architecture if same else probe.base.digest)[:12]} ({probe.base.identity})",
            do="Run fedloom probe again with this configuration",
        )
