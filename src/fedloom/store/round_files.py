"""A round's state as files, and back: equal values give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.aggregation.world import GlobalState
from fedloom.errors import CheckpointDamagedError
from fedloom.store.json_values import canonical, json_values

ADAPTER_FILE = "adapter.safetensors"
STATE_FILE = "state.json"
_CLIENTS, _EXTRAS, _HEAD = "clients/", "extras/", "head/"


def to_files(
    round: int, state: GlobalState, head: Mapping[str, Tensor], metrics: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, bytes]:
    """adapter.safetensors: shared, trunk, momentum, clients/NAME; tensors extras/, head/; state.json: the rest."""
    clients = {_CLIENTS + client: adapter for client, adapter in state.clients.items()}
    tensors = _prefixed(_EXTRAS, state.extras) | _prefixed(_HEAD, head)
    adapters = {"shared": state.shared, "trunk": state.trunk, "momentum": state.momentum} | clients
    table = {
        "round": round,
        "rounds": state.rounds,
        "ranks": json_values(state.ranks),
        "metrics": json_values(metrics),
        "facts": json_values(facts),
    }
    return {
        ADAPTER_FILE: to_bytes(adapters, tensors, facts={"round": str(round)}),
        STATE_FILE: canonical(table).encode() + b"\n",
    }


def from_files(files: Mapping[str, bytes], *, where: str) -> tuple[GlobalState, dict[str, Tensor], dict[str, Any]]:
    """(state, head, content of state.json). Raises: CheckpointDamagedError, AdapterError for files of another kind."""
    missing = {ADAPTER_FILE, STATE_FILE} - files.keys()
    if missing:
        raise CheckpointDamagedError("a file of the round is missing", where=where, expected=min(missing))
    adapters, tensors, _ = from_bytes(files[ADAPTER_FILE], where=f"{where}/{ADAPTER_FILE}")
    table = json.loads(files[STATE_FILE])
    state = GlobalState(
        shared=adapters["shared"],
        trunk=adapters["trunk"],
        clients=_under(_CLIENTS, adapters),
        momentum=adapters["momentum"],
        ranks=table["ranks"],
        extras=_under(_EXTRAS, tensors),
        rounds=table["rounds"],
    )
    return state, _under(_HEAD, tensors), table


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
