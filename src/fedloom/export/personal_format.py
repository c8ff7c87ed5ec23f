"""The layout of a personal directory, and its description mixing.json: what writer and loader have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fedloom.aggregation.world import Mixing
from fedloom.errors import AdapterError

INDIVIDUAL, REST, TRUNK, MERGED = "individual", "rest_of_world", "trunk", "merged"
DESCRIPTION, MIXER, README = "mixing.json", "mixer.safetensors", "README.md"
BRANCHES = (INDIVIDUAL, REST, TRUNK)
MIXER_KEY = ".mixer.weight"  # behind PEFT's name of a module
FORMAT, VERSION = "fedloom.personal", 1

Kind = Literal["learned", "static", "sum"]


@dataclass(frozen=True)
class Description:
    """What mixing.json says.

    kind, share: as of `Mixing`.  base: what transformers loads; base_digest: SHA-256 of its weights as stored.
    branches: the directories that are there, of BRANCHES; one that would be empty is not.
    shares: module -> own share of the closest static mixture, which `merged` is made with; empty where nobody knows.
    about: where it comes from, for people; nothing is read from it.
    """

    kind: Kind
    share: float
    base: str
    base_digest: str
    task: str
    branches: tuple[str, ...]
    shares: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mixing(self) -> Mixing:
        return Mixing(self.kind, self.share)

    @property
    def mixes(self) -> bool:
        """Whether there are mixers: of two branches whose share is learned."""
        return self.kind == "learned" and {INDIVIDUAL, REST} <= set(self.branches)

    def to_json(self) -> str:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            **({"share": self.share} if self.kind != "sum" else {}),
            "base": self.base,
            "base_digest": self.base_digest,
            "task": self.task,
            "branches": list(self.branches),
            "closest_static_shares": dict(self.shares),
            "about": dict(self.about),
        }
        return json.dumps(content, indent=2) + "\n"


def read_description(path: Path) -> Description:
    """mixing.json of a directory. Raises: AdapterError naming the file where it is missing, damaged or of another
    version."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        do = "Give the directory that `fedloom export` wrote for a client"
        raise AdapterError(f"no readable description of a personal model: {problem}", where=path, do=do) from problem
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise AdapterError("not a personal model", where=path, expected=f"format {FORMAT}", found=found)
    if table.get("version") != VERSION:
        raise AdapterError(
            "a personal model of a version that is not known here",
            where=path,
            expected=f"version {VERSION}",
            found=table.get("version"),
            do="Install the FedLoom that wrote it",
        )
    return _checked(table, path)


def _checked(table: Mapping[str, Any], path: Path) -> Description:
    def get(key: str, expected: str, fits: Any, default: Any = None) -> Any:
        value = table.get(key, default)
        if not fits(value):
            raise AdapterError(f"the description is damaged at {key!r}", where=path, expected=expected, found=value)
        return value

    kinds = get_args(Kind)
    kind = cast(Kind, get("kind", f"one of {kinds}", lambda value: value in kinds))
    branches = get("branches", f"a list of {BRANCHES}", _are_branches)
    shares = get("closest_static_shares", "a table of shares", _are_shares, {})
    return Description(
        kind=kind,
        share=get("share", "a share between 0 and 1", _is_inside, 0.5 if kind == "sum" else None),
        base=get("base", "a model", _is_text),
        base_digest=get("base_digest", "a digest", _is_text),
        task=get("task", "a task", _is_text),
        branches=tuple(branches),
        shares=shares,
        about=get("about", "a table", lambda value: isinstance(value, dict), {}),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _are_branches(value: Any) -> bool:
    return isinstance(value, list) and all(name in BRANCHES for name in value)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_inside(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _are_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_share, value.values()))
