"""What must hold of the files of any kit before it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from fedloom.errors import KitError
from fedloom.kits.keys import PrivateKey, PublicKey, fingerprint, load_private_key
from fedloom.kits.layout import KIT

_AGAIN = "Ask the operator for the kit again; fedloom provision makes it"


def check_is_kit(directory: Path) -> None:
    """Raises: KitError if the path is no folder with a kit.toml."""
    if not directory.is_dir():
        raise KitError("there is no such folder", where=directory, expected="the folder of a kit")
    if not (directory / KIT).is_file():
        raise KitError("this folder is no kit", where=directory, expected=f"a file {KIT} in it", do=_AGAIN)


def check_complete(directory: Path, names: Iterable[str]) -> None:
    """Raises: KitError that names every file that is missing."""
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise KitError("the kit is not complete", where=directory, found=f"no {', no '.join(missing)}", do=_AGAIN)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises: KitError with the reason of the system."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise KitError("the file cannot be read", where=path, found=error.strerror) from error


def read_private_key(path: Path) -> PrivateKey:
    """A key that nobody but its owner can read. Raises: KitError if others can, or if it is no such key."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        raise KitError("the file cannot be read", where=path, found=error.strerror) from error
    if mode & 0o077:
        do = f"If nobody has read it: chmod 600 {path}. Otherwise ask for a new kit"
        raise KitError(
            "others can read or write this private key", where=path, expected="600", found=f"{mode:o}", do=do
        )
    return load_private_key(read_bytes(path), path)


def check_pair(private: PrivateKey, public: object, where: Path, public_file: str) -> None:
    """Raises: KitError if the public key is not that of the private one."""
    own = private.public_key()
    if own != public:
        found = fingerprint(public) if isinstance(public, PublicKey) else "a key of another kind"
        what = f"the key does not match {public_file}"
        raise KitError(what, where=where, expected=fingerprint(own), found=found, do=_AGAIN)
