"""The corpus: programs that reached something first, and the features that they reached.

A feature is a branch of the coverage map counted at least so often, for each of `STEPS`; so it is
new to meet a branch, and again to meet it many times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

STEPS = (1, 2, 3, 8)  # the least count of each feature of a branch

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.uint8]


def features_of(coverage: Counts) -> Mask:
    """Return the features of coverage maps, shape (n, branches) to (n, 4 * branches)."""
    reached = coverage[:, :, None] >= np.array(STEPS, np.uint8)
    return reached.reshape(len(coverage), -1)


def reached_branches(seen: Mask) -> int:
    """Return how many branches some features belong to."""
    return int(np.count_nonzero(seen.reshape(-1, len(STEPS))[:, 0]))


@dataclass(frozen=True, slots=True)
class Entry:
    """A program and the numbers of the features that were new with it."""

    program: bytes
    features: tuple[int, ...]


def first_reached(features: Mask, seen: Mask) -> dict[int, tuple[int, ...]]:
    """Return which programs reach features first, and which ones.

    Parameters
    ----------
    features : ndarray of bool, shape (n, features)
        What each program reaches.
    seen : ndarray of bool, shape (features,)
        What was reached before; not changed.

    Returns
    -------
    dict of int to tuple of int
        By row, in rising order; a feature belongs to the first row that has it.
    """
    columns = np.flatnonzero(features.any(axis=0) & ~seen)
    rows = features[:, columns].argmax(axis=0)
    first: dict[int, list[int]] = {}
    for row, column in sorted(zip(rows.tolist(), columns.tolist(), strict=True)):
        first.setdefault(row, []).append(column)
    return {row: tuple(found) for row, found in first.items()}


def read_programs(directory: Path) -> tuple[bytes, ...]:
    """Return the programs of a directory, as libFuzzer and AFL++ keep them: a file each, by name.

    Raises
    ------
    InvalidArgument
        There is no such directory, or no file in it.
    """
    if not directory.is_dir():
        raise InvalidArgument(f"{directory} is no directory; give one that has files of programs")
    programs = tuple(path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file())
    if not programs:
        raise InvalidArgument(
            f"{directory} has no files of programs; give the directory that they are in itself (of "
            "AFL++ that is queue)"
        )
    return programs


class Corpus:
    """Entries in the order in which they came, each with a feature that none before it has.

    Parameters
    ----------
    features : int
        How many features there are.

    Attributes
    ----------
    entries : list of Entry
        Kept programs; one may be there for each of several setups.
    seen : ndarray of bool, shape (features,)
        What they reach.
    """

    def __init__(self, features: int) -> None:
        self.entries: list[Entry] = []
        self.seen: Mask = np.zeros(features, np.bool_)

    @property
    def programs(self) -> list[bytes]:
        """The programs of the entries, each once."""
        return list(dict.fromkeys(entry.program for entry in self.entries))

    def add(self, entries: Iterable[Entry]) -> list[Entry]:
        """Keep entries that reach something new; return those."""
        kept = []
        for entry in entries:
            new = [number for number in entry.features if not self.seen[number]]
            if new:
                self.seen[new] = True
                kept.append(Entry(entry.program, tuple(new)))
        self.entries += kept
        return kept
