"""Probes of machines that are not there."""

from __future__ import annotations

from pathlib import Path

from fedloom.planning.probe_file import (
    BaseFacts,
    Bucket,
    Calibrated,
    Loading,
    Probe,
    Rows,
    architecture_digest,
    facts_of,
    to_json,
)
from fedloom.planning.values import Machine, Memory, Speed
from fedloom.training.architecture import architecture_of
from fedloom.training.base_model import BaseModel


def pretended_probe(
    base: BaseModel, client: str, *, slower: float = 1.0, memory: float = 1e9, bits: tuple[int, ...] = (32, 8, 4)
) -> Probe:
    """Of a machine that is so many times slower than one with 1 us a token forward and 2 us backward."""
    speeds = tuple(Speed(number, 1e-6 * slower, 2e-6 * slower) for number in bits)
    machine = Machine(
        memory,
        speeds,
        batch_seconds=1e-3 * slower,
        product_seconds=1e-9 * slower,
        memory=Memory(runtime_bytes=1e6),
    )
    return Probe(
        format=1,
        client=client,
        base=BaseFacts(
            identity=base.identity,
            digest=base.digest,
            architecture=architecture_digest(architecture_of(base)),
            dtype="float32",
        ),
        machine=facts_of(machine),
        memory_total=int(2 * memory),
        memory_available=int(memory),
        cores=2,
        device="cpu",
        versions={},
        loading=(Loading(bits=32, seconds=1.0, peak_bytes=1e6),),
        unavailable=(),
        rows=Rows(
            train=20,
            held_out=2,
            dropped=0,
            lengths=(Bucket(up_to=32, rows=10), Bucket(up_to=64, rows=10)),
            learned=(Bucket(up_to=16, rows=20),),
        ),
        bandwidth=None,
        calibrated=Calibrated(
            trials=4, memory_by="hwm", memory_error=0.01, seconds_error=0.1, assumed=(), stopped=None
        ),
        seconds=10.0,
    )


def write_probes(folder: Path, probes: list[Probe]) -> Path:
    """A file for each, as `fedloom probe` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for probe in probes:
        (folder / f"{probe.client}.json").write_text(to_json(probe), encoding="utf-8")
    return folder
