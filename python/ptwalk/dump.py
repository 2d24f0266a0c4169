"""Page tables as text: a listing of a range, and the walk to one address.

The listing is named after mm/ptdump.c and groups equal neighbours, but prints raw entries with
their PFN field cleared and the frame beside it, so that a line means the same on every run. It
only reads; tables are followed by the address space itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from .pte import PMD, PTE, PUD, U64, Kind, location, names, pfn_cleared

if TYPE_CHECKING:
    from .address_space import AddressSpace

PAGE_SIZE = 1 << 12
_BELOW = {
    "pgd": "nothing mapped below",
    "p4d": "no PUD table",
    "pud": "no PMD table",
    "pmd": "no PTE table",
}


def _size(level: int) -> int:
    """Bytes that one entry of `level` maps."""
    return PAGE_SIZE << 9 * (level - 1)


class WalkStep(NamedTuple):
    """One level of a walk."""

    level: str  #: "pgd" … "pte"
    index: int  # type: ignore[assignment]  #: of the entry in its table; hides tuple.index
    entry: int  #: raw
    kind: Kind


class Walk(Sequence[WalkStep]):
    """The entry of each level on the way to an address, the top one first.

    Attributes
    ----------
    address : int
        Where the walk goes, in bytes.
    stopped : str
        The level of the last entry: "pte", or a higher one that holds no table.
    """

    def __init__(self, mm: AddressSpace, address: int) -> None:
        self.address = address
        self._steps: list[WalkStep] = []
        for level, index, word in mm._core.walk(address):
            array = np.array([word], dtype=np.uint64)
            decoded = mm.decode(array, level=level)
            self._steps.append(WalkStep(level, index, word, Kind(decoded["kind"][0])))
        self.stopped, _, _, kind = self._steps[-1]
        self._end = ""  # what the last entry says, or why nothing lies below it
        if kind not in (Kind.NONE, Kind.TABLE):
            cleared = pfn_cleared(array, decoded, self.stopped)[0]
            self._end = f" {cleared:#018x} {location(decoded[0])}".rstrip()
        elif self.stopped in _BELOW:
            self._end = f"; stopped at {self.stopped}, {_BELOW[self.stopped]}"

    @overload
    def __getitem__(self, index: int) -> WalkStep: ...
    @overload
    def __getitem__(self, index: slice) -> list[WalkStep]: ...
    def __getitem__(self, index: int | slice) -> WalkStep | list[WalkStep]:
        return self._steps[index]

    def __len__(self) -> int:
        return len(self._steps)

    def __str__(self) -> str:
        steps = (f"{step.level}[{step.index}] {step.kind.name.lower()}" for step in self)
        return f"{self.address:#018x}: {', '.join(steps)}{self._end}"

    def __repr__(self) -> str:
        return f"Walk({self})"


@dataclass
class _Run:
    """Neighbours of one level and kind that are equal but for their pfn or swap offset."""

    start: int
    pages: int
    level: int
    word: int  # of the first, raw
    cleared: int
    entry: np.void
    first: int  # pfn or swap offset of the first entry
    last: int  # and of the last
    constant: bool  # all have the same
    rising: bool  # each has that of the next frame

    def absorb(self, other: _Run) -> bool:
        """Take in the run that follows when it is of the same kind and word."""
        same = (self.level, self.cleared) == (other.level, other.cleared)
        if not same or self.entry["kind"] != other.entry["kind"]:
            return False
        step = _size(self.level) // PAGE_SIZE
        self.pages += other.pages
        self.constant &= other.constant and self.first == other.first
        self.rising &= other.rising and other.first == self.last + step
        self.last = other.last
        return True

    @property
    def place(self) -> str:
        """The pfn or swap offset, or the range of them."""
        text = location(self.entry)
        if not text or self.constant:
            return text
        return f"{text}..{self.last:#x}" if self.rising else f"{text},…"


def _runs(mm: AddressSpace, bounds: Sequence[int], level: int, words: U64) -> Iterator[_Run]:
    """Group entries of one level; the one at `i` maps ``bounds[i]`` to ``bounds[i + 1]``."""
    firsts = np.flatnonzero(np.append(True, words[1:] != words[:-1]))  # of equal words
    unlike = words[firsts]
    entries = mm.decode(unlike, level=level)
    cleared = pfn_cleared(unlike, entries, level)
    places = np.where(entries["kind"] == Kind.SWAP, entries["offset"], entries["pfn"])
    changed = (np.diff(entries["kind"]) != 0) | (np.diff(cleared) != 0)
    heads = np.flatnonzero(np.append(True, changed))
    ends = np.append(heads[1:], len(unlike))
    # How many neighbours up to here are one frame apart: all within a group that rises.
    rises = np.append(0, np.cumsum(np.diff(places) == _size(level) // PAGE_SIZE))
    stops = np.append(firsts[1:], len(words))
    for head, end in zip(heads.tolist(), ends.tolist(), strict=True):
        first, stop = int(firsts[head]), int(stops[end - 1])
        yield _Run(
            bounds[first],
            (bounds[stop] - bounds[first]) // PAGE_SIZE,
            level,
            int(unlike[head]),
            int(cleared[head]),
            entries[head],
            int(places[head]),
            int(places[end - 1]),
            constant=end - head == 1,
            rising=bool(rises[end - 1] - rises[head] == stop - first - 1),
        )


def _pieces(mm: AddressSpace, start: int, end: int) -> Iterator[_Run]:
    """Go through a range by the level at which its walks end; an absent table is one step."""
    while start < end:
        level = int(mm.levels(start, PAGE_SIZE)[0])
        size = _size(level)
        stop = min(end, start // size * size + size)
        if level <= PMD:  # and the entries of this level that follow, as far as one PMD table goes
            limit = min(end, start // _size(PUD) * _size(PUD) + _size(PUD))
            others = np.flatnonzero(mm.levels(start, limit - start) != level)
            limit = start + int(others[0]) * PAGE_SIZE if len(others) else limit
        else:
            limit = stop
        bounds: Sequence[int]
        if level == PTE:
            bounds, words = range(start, limit + 1, PAGE_SIZE), mm.ptes(start, limit - start)
        else:
            bounds = [start, *range(stop, limit, size), limit]
            words = np.array([mm._core.walk(at)[-1][2] for at in bounds[:-1]], dtype=np.uint64)
        yield from _runs(mm, bounds, level, words)
        start = limit


def ptdump(mm: AddressSpace, start: int, length: int) -> str:
    """List the entries of a range.

    Parameters
    ----------
    mm : AddressSpace
        Whose tables.
    start, length : int
        The range in bytes, page aligned.

    Returns
    -------
    str
        One line for each group of equal neighbours: address, pages, level, kind, entry with its
        PFN field (of a swap entry: its offset) cleared, frame or offset, flags. ``0x1..0x9`` are
        frames that follow each other, ``0x1,…`` others. Where there is no table, the none entry
        of the level above stands for its pages.

    Raises
    ------
    InvalidArgument
        The range is not page aligned or not in the address space.

    Notes
    -----
    An absent table costs one step, whatever it would map; entries are read 1 GiB at a time.
    """
    mm.count(start, length)  # judges the range
    runs: list[_Run] = []
    for run in _pieces(mm, start, start + length):
        if not runs or not runs[-1].absorb(run):
            runs.append(run)
    if not runs:
        return ""
    rows = []
    for run in runs:
        level, _, _ = mm._core.walk(run.start)[-1]
        kind = Kind(run.entry["kind"]).name.lower()
        found = names(run.word, run.entry, profile=mm.profile, level=run.level, config=mm.config)
        cells = level, kind, f"{run.cleared:#018x}", run.place, ", ".join(found)
        rows.append((f"{run.start:#018x}", f"{run.pages}", *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[1] = -widths[1]  # the only number: to the right
    lines = []
    for row in rows:
        cells_and_widths = [(c, w) for c, w in zip(row, widths, strict=True) if w]
        lines.append("  ".join(c.ljust(w) if w > 0 else c.rjust(-w) for c, w in cells_and_widths))
    return "\n".join(line.rstrip() for line in lines)
