"""Pieces of the global delta on a disk, by their digests: at the server, and at each client what it was sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedloom.store.durable import cannot_write
from fedloom.store.unfinished import remove_abandoned, replace_file

_NAME = re.compile(r"([0-9a-f]{64})\.safetensors")
_UNFINISHED = re.compile(r"\.([0-9a-f]{64}\.safetensors)\.tmp-[0-9]+")


@dataclass(frozen=True, eq=False)
class PieceStore(Mapping[str, bytes]):
    """digest -> bytes, a file each, read when asked for. One that is not what its name says cannot be got.

    Several processes may write the same piece at once.
    """

    directory: Path

    def put(self, data: bytes) -> str:
        """Keep a piece, durably, and give its digest. Raises: RunError if it cannot be written."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if self._read(digest) is None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(error, path, needed_bytes=len(data), intact="No piece is lost") from error
            replace_file(path, data, intact="What was there before is intact", again="resume")
        return digest

    def __getitem__(self, digest: str) -> bytes:
        found = self._read(digest)
        if found is None:
            raise KeyError(digest)
        return found

    def __contains__(self, digest: object) -> bool:
        """Whether there is a file, whatever is in it."""
        return isinstance(digest, str) and self._path(digest).is_file()

    def __iter__(self) -> Iterator[str]:
        """The digests that there are files of, whatever is in them."""
        entries = self.directory.iterdir() if self.directory.is_dir() else ()
        return iter(sorted(name[1] for entry in entries if (name := _NAME.fullmatch(entry.name))))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all other pieces, and what killed processes left. One that cannot be removed stays."""
        for digest in set(self) - set(digests):
            self._path(digest).unlink(missing_ok=True)
        for entry in list(self.directory.iterdir()) if self.directory.is_dir() else ():
            if unfinished := _UNFINISHED.fullmatch(entry.name):
                remove_abandoned(self.directory / unfinished[1])

    def _read(self, digest: str) -> bytes | None:
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _path(self, digest: str) -> Path:
        return self.directory / f"{digest}.safetensors"
