"""The journal of a campaign: one record for each task that is done, written once and for good.

A record is a line: a checksum, a space, JSON. It counts when all of it is on the disk; what a
killed process left of its last line is cut off when the next record is written. Any other line that
is no record is an error, and stays. Whoever has the journal open holds a lock on it, so that no
task is recorded twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from ..errors import InvalidArgument

Record = dict[str, Any]

_UNFINISHED = ".tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place at once: whoever looks sees all of the old one or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _line(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def remove_unfinished(directory: Path) -> None:
    """Remove the files that writers of a campaign left when they were killed, and nothing else."""
    name = re.compile(rf"\..+\.\d+{re.escape(_UNFINISHED)}")  # as `write_atomically` has it
    for place in (directory, directory / "corpus", *(directory / "findings").glob("*")):
        for path in place.iterdir() if place.is_dir() else ():
            if name.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink()


def _records(path: Path) -> tuple[list[Record], int]:
    """Return the records of a journal and how many bytes of it are whole."""
    *lines, _ = path.read_bytes().split(b"\n")
    records, end = [], 0
    for number, line in enumerate(lines, 1):
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            raise InvalidArgument(
                f"{path}: line {number}, at byte {end}, is no record of a campaign; put the file "
                "back from a copy, cut it off there (what follows is lost), or use another "
                "directory"
            )
        records.append(json.loads(text))
        end += len(line) + 1
    return records, end


def read_journal(path: Path) -> list[Record]:
    """Return the whole records of a journal, in the order of their writing; none without a file.

    Raises
    ------
    InvalidArgument
        A line other than the last one, unfinished, is no record.
    """
    return _records(path)[0] if path.exists() else []


class Journal:
    """An append-only file of records, locked while it is open.

    Parameters
    ----------
    path : Path
        Made where it does not exist.

    Attributes
    ----------
    records : list of dict
        What was in it when it was opened.

    Raises
    ------
    InvalidArgument
        Another process has it open, or a line other than an unfinished last one is no record.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InvalidArgument(
                f"{path} is in use by another campaign; wait for it or use another directory"
            ) from None
        try:
            self.records, self._end = _records(path)
        except BaseException:
            self.close()
            raise
        _sync_directory(path.parent)

    def append(self, records: Iterable[Record]) -> None:
        """Write records; when this returns they are on the disk."""
        data = b"".join(map(_line, records))
        os.ftruncate(self._file, self._end)  # what a killed process or a full disk left of one
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]
        os.fsync(self._file)
        self._end += len(data)

    def close(self) -> None:
        """Give the lock back; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_journal(directory: Path, identity: Record) -> Journal:
    """Return the journal of a campaign, whose directory is tidied up then.

    Parameters
    ----------
    directory : Path
        Made where it does not exist.
    identity : dict
        What a campaign must be to go on there.

    Raises
    ------
    InvalidArgument
        The directory holds another campaign, a damaged one, or is in use; nothing is changed.
    """
    path = directory / "campaign.json"
    identity = json.loads(json.dumps(identity))
    journal = Journal(directory / "journal")
    try:
        if path.exists():
            _same(path, identity)
        elif journal.records:
            raise InvalidArgument(
                f"{directory} holds a journal without campaign.json; put that back from a copy, or "
                "use another directory"
            )
        else:
            write_atomically(path, json.dumps(identity, indent=1).encode())
        remove_unfinished(directory)
    except BaseException:
        journal.close()
        raise
    return journal


def read_identity(path: Path) -> Record:
    """Return what a campaign.json says: what `open_journal` was given.

    Raises
    ------
    InvalidArgument
        It says something else.
    """
    try:
        known = json.loads(path.read_bytes())
    except ValueError:
        known = None
    if not isinstance(known, dict) or not {"profile", "setups", "judges", "features"} <= set(known):
        raise InvalidArgument(
            f"{path} describes no campaign; put it back from a copy, or use another directory"
        )
    return known


def _same(path: Path, identity: Record) -> None:
    """Refuse a directory that holds another campaign."""
    before = read_identity(path)
    other = [name for name in identity if before.get(name) != identity[name]]
    if other:
        raise InvalidArgument(
            f"{path.parent} holds a campaign with {other[0]} {before.get(other[0])!r}, not "
            f"{identity[other[0]]!r}; use another directory, or the options and version that began "
            "it"
        )
