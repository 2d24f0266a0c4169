"""Workloads: named, seeded address spaces to protect and resolve, for benchmarks and tests.

A workload is one mapping, registered with a userfaultfd for wr-protection, whose PTE tables hold a
mix of present, none, swap and marker entries. Entries are stored raw, so building 65536 tables
takes seconds; swap slots have no counts, and pages no facts unless they are anonymous: those are
exclusive and dirty, as after a store. Huge pages are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .address_space import AddressSpace
from .errors import InvalidArgument
from .files import ShmemFile

if TYPE_CHECKING:
    import numpy.typing as npt

    from .userfaultfd import Userfaultfd
    from .vma import Vma

START = 1 << 44
_PMD_SIZE = 1 << 21
_LARGEST = 64 << 40
_PERCENT = 100
_PRESENT = 0x8000000000000067  # P RW US A D NX
_FIRST_PFN = 1 << 20
_PFNS = 1 << 30
_SWAP_OFFSETS = 1 << 20
_PER_CALL = 256  # tables stored by one call where they lie side by side

_SHARES = {  # percent of present, none, swap and marker entries
    "present": (100, 0, 0, 0),
    "none": (0, 100, 0, 0),
    "sparse": (2, 98, 0, 0),
}
_WHOLE = ("untouched", "marker")
_FACTS = 1 | 4 | 8  # anonymous, exclusive, dirty

Backing = Literal["private-file", "shmem", "anon"]
_MAP_FLAGS: dict[Backing, str] = {
    "private-file": "private",
    "shmem": "shared",
    "anon": "private|anonymous",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """An address space in a known state.

    Attributes
    ----------
    mm : AddressSpace
        The address space, on a machine of its own.
    uffd : Userfaultfd
        What the mapping is registered with.
    vma : Vma
        The mapping.
    start, length : int
        The mapping in bytes.
    """

    mm: AddressSpace = field(repr=False)
    uffd: Userfaultfd = field(repr=False)
    vma: Vma = field(repr=False)
    mix: str
    profile: str
    start: int
    length: int
    backing: Backing


def _shares_of(mix: str) -> tuple[int, ...]:
    """Percentages of a mix that fills tables."""
    if mix in _SHARES:
        return _SHARES[mix]
    if re.fullmatch(r"\d+(/\d+){3}", str(mix)):
        shares = tuple(map(int, mix.split("/")))
        if sum(shares) == _PERCENT:
            return shares
    raise InvalidArgument(
        f"mix {mix!r} is not known; use one of {', '.join([*_WHOLE, *_SHARES])}, or percentages of "
        'present, none, swap and marker entries that add up to 100, such as "70/15/10/5"'
    )


def marker(profile: str) -> int:
    """Return the word that wr-protecting a none entry of a file leaves.

    Parameters
    ----------
    profile : str
        Which kernel's rules apply.

    Returns
    -------
    int
        0 where the profile has no markers.
    """
    scratch, uffd, _ = _registered(profile, 2 * _PMD_SIZE, "private-file")
    scratch.access(START, write=False)  # v2 populates below an existing PMD table only
    uffd.writeprotect(START + _PMD_SIZE, 4096)
    return int(scratch.ptes(START + _PMD_SIZE, 4096)[0])


def _registered(
    profile: str, length: int, backing: Backing
) -> tuple[AddressSpace, Userfaultfd, Vma]:
    mm = AddressSpace(profile)
    file = None if backing == "anon" else ShmemFile(length)
    mm.mmap(START, length, "rw-", _MAP_FLAGS[backing], file)
    uffd = mm.userfaultfd()
    uffd.register(START, length, "wp")
    return mm, uffd, mm.vmas[0]  # as registering left it


def _words(
    rng: np.random.Generator, shares: tuple[int, ...], marker: int, first: int, nr: int
) -> npt.NDArray[np.uint64]:
    """Draw entries; frames run on from `first`, swap offsets are drawn."""
    dice = rng.integers(0, _PERCENT, nr, dtype=np.uint8)
    present, none, swap, _ = np.cumsum(shares)
    pfns = _FIRST_PFN + (first + np.arange(nr, dtype=np.uint64)) % _PFNS
    offsets = rng.integers(1, _SWAP_OFFSETS, nr, dtype=np.uint64)
    # Swap type 0: the inverted offset from bit 9 on, below the type. (SWP_OFFSET_SHIFT)
    swapped = (~offsets << np.uint64(14)) >> np.uint64(5)
    words = np.full(nr, marker, np.uint64)
    words[dice < swap] = swapped[dice < swap]
    words[dice < none] = 0
    here = dice < present
    words[here] = (pfns[here] << np.uint64(12)) | np.uint64(_PRESENT)
    return words


def build(
    mix: str,
    *,
    length: int,
    tables: float = 1,
    profile: str = "6.18",
    seed: int = 0,
    backing: Backing = "private-file",
) -> Workload:
    """Build an address space for benchmarks of wr-protection.

    Parameters
    ----------
    mix : str
        "untouched" (no tables), "marker" (wr-protected once), "present", "none" (tables without
        entries), "sparse" (2 % present), or percentages of present, none, swap and marker entries
        such as "70/15/10/5".
    length : int
        Bytes of the mapping, a multiple of 2 MiB, at most 64 TiB.
    tables : float
        The share of PTE tables that the mix fills, evenly spread; the rest stays untouched.
    profile : str
        Which kernel's rules apply.
    seed : int
        Of the random numbers: the same seed gives the same entries.
    backing : {"private-file", "shmem", "anon"}
        A private mapping of a shmem file, a shared one, or private anonymous memory.

    Returns
    -------
    Workload
        With `mm`, `uffd`, `vma`, `start` and `length`.

    Raises
    ------
    InvalidArgument
        For an unknown mix or backing, a length or share out of range, or a mix that the profile
        cannot protect.

    Examples
    --------
    >>> from ptwalk import workload
    >>> w = workload.build("untouched", length=1 << 40)
    >>> w.uffd.writeprotect(w.start, w.length).pages
    268435456
    """
    if length not in range(_PMD_SIZE, _LARGEST + 1, _PMD_SIZE):
        raise InvalidArgument(
            f"length {length!r} is not a multiple of 2 MiB from 2 MiB to 64 TiB; round it"
        )
    if not 0 < tables <= 1:
        raise InvalidArgument(f"tables {tables!r} is not a share of tables; give 0 < tables <= 1")
    if backing not in _MAP_FLAGS:
        raise InvalidArgument(
            f"backing {backing!r} is not known; use one of {', '.join(_MAP_FLAGS)}"
        )
    shares = None if mix in _WHOLE else _shares_of(mix)
    mm, uffd, vma = _registered(profile, length, backing)
    if shares is None:
        armed = uffd.writeprotect(START, length) if mix == "marker" else None
        skips = armed.none_skipped if armed else _skips_untouched(profile, backing)
        if skips:
            raise InvalidArgument(
                f"profile {profile!r} protects nothing in an untouched mapping ({backing}), so one "
                f'that is {mix!r} stays as it is; use profile "6.18" and a file, or another mix'
            )
    else:
        word = marker(profile) if shares[3] else 0
        if shares[3] and not word:
            raise InvalidArgument(
                f"profile {profile!r} has no markers; use a mix without them, or another profile"
            )
        _fill(mm, shares, word, round(1 / tables), length, seed)
    return Workload(mm, uffd, vma, mix, mm.profile, START, length, backing)


def _skips_untouched(profile: str, backing: Backing) -> bool:
    _, uffd, _ = _registered(profile, _PMD_SIZE, backing)
    return uffd.writeprotect(START, _PMD_SIZE).none_skipped > 0


def _fill(
    mm: AddressSpace, shares: tuple[int, ...], marker: int, step: int, length: int, seed: int
) -> None:
    """Store the mix in every `step`-th table."""
    rng = np.random.default_rng(seed)
    anon = mm.vmas[0].file is None
    nr_tables = -(-(length // _PMD_SIZE) // step)
    for first in range(0, nr_tables, _PER_CALL):
        nr = min(_PER_CALL, nr_tables - first)
        words = _words(rng, shares, marker, first * 512, nr * 512)
        if step == 1:
            _store(mm, START + first * _PMD_SIZE, words, anon)
            continue
        for table, part in enumerate(words.reshape(nr, 512), first):
            _store(mm, START + table * step * _PMD_SIZE, part, anon)


def _store(mm: AddressSpace, start: int, words: npt.NDArray[np.uint64], anon: bool) -> None:
    """Store entries; anonymous pages have facts, for requests that ask AnonExclusive."""
    if anon:
        present = np.where(words & np.uint64(1), words, 0)
        mm.load_pages(start, present, np.full(len(words), _FACTS, np.uint8))
    mm.set_ptes(start, words)
