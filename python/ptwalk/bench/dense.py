"""Dense tables: wr-protect and resolve entries that are all there, in the L2 cache and in DRAM.

What counts is the public call on an address space, `Userfaultfd.writeprotect`; leaf kernels and
peers work on an array of the same entries. Every trial starts from the same entries, which are put
back before it, not timed; a figure is the mean of protect and resolve, in ns for each entry.

ptwalk keeps what a request saw of a table until somebody stores into it. "ptwalk" is a request on
tables that an earlier one has seen, "ptwalk, first look" one on tables that nobody has.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from .. import _core, workload
from ..machine import kernels, trim
from ..pagemap import PAGE_SIZE
from ..running_kernel import Backed
from . import peers
from .harness import U64, Contender, Step, aligned, interleave, processors
from .peers import Rules
from .progress import Progress
from .results import Line, not_installed
from .running import RUNNING, kernel_range
from .settings import Settings

NAME = "dense"
TITLE = "Dense tables: wr-protect and resolve"
LIMIT, LIMIT_2 = "read-modify-write", "read-modify-write, 2 threads"
COPY = "memcpy"
PTWALK = "ptwalk"
FIRST_LOOK = "ptwalk, first look"
PTWALK_2 = "ptwalk, 2 threads"
BRANCHY, BRANCH_FREE = "numba, branchy", "numba, branch-free"
WHERE, MASKS = "numpy.where", "numpy, masks"
PYTHON = "Python loop"

TABLE = 2 << 20  # bytes of addresses
_PYTHON_ENTRIES = 4096
_CHECKED = 16  # tables on which a loop must do what ptwalk does

MIXES = {
    "present": "all present",
    "none": "all none",
    "0/0/0/100": "all marker",
    "70/15/10/5": "70/15/10/5",
    "25/25/25/25": "25 each",
    "sparse": "2 % present",
}
UNIFORM = ("all present", "all none", "all marker")
MIXED = ("70/15/10/5", "25 each")


@dataclass(frozen=True, slots=True)
class Request:
    """A backing under a profile.

    Attributes
    ----------
    name, profile : str
        What its lines are called, and whose rules apply.
    backing : str
        As `workload.build` takes it.
    saves_dirty : bool
        The profile has SAVED_DIRTY.
    """

    name: str
    profile: str
    backing: workload.Backing
    saves_dirty: bool

    def rules(self, marker: int) -> tuple[Rules, Rules]:
        """Return what protect and resolve do, for the peers."""
        anon = self.backing == "anon"
        return (
            peers.rules(protect=True, marker=marker, anon=anon, saves_dirty=self.saves_dirty),
            peers.rules(protect=False, marker=marker, anon=anon, saves_dirty=self.saves_dirty),
        )


REQUESTS = (
    Request("shmem, uffd-wp-v2", "uffd-wp-v2", "shmem", False),
    Request("anonymous, 6.18", "6.18", "anon", True),
)


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure every request on every mix, small and large."""
    loops, missing = _loops()
    for size, tables in (("L2", settings.small_tables), ("DRAM", settings.large_tables)):
        for request in REQUESTS:
            for mix, label in MIXES.items():
                if size == "DRAM" and settings.large_mixes and mix not in settings.large_mixes:
                    continue
                progress(NAME, f"{size}, {request.name}, {label}")
                yield Case(request, mix, tables, size).measure(settings, loops, missing)
                trim()


def _loops() -> tuple[dict[str, peers.Loop], dict[str, str]]:
    """Return the loops of peers that are installed, and why the others are not there."""
    loops: dict[str, peers.Loop] = {MASKS: peers.numpy_masks, WHERE: peers.numpy_where}
    if importlib.util.find_spec("numba") is None:
        return loops, dict.fromkeys((BRANCHY, BRANCH_FREE), not_installed("numba"))
    branchy, branch_free = peers.numba_loops()
    return {BRANCH_FREE: branch_free, BRANCHY: branchy, **loops}, {}


class Case:
    """One mix of entries, in an address space and as an array for everybody else."""

    def __init__(self, request: Request, mix: str, tables: int, size: str) -> None:
        self.request, self.mix, self.size = request, mix, size
        self.space = workload.build(
            mix, length=tables * TABLE, profile=request.profile, backing=request.backing, seed=1
        )
        self.entries = self.space.mm.ptes(self.space.start, self.space.length)
        self.words = aligned(len(self.entries))
        self.rules = request.rules(workload.marker(request.profile))
        self.exclusive = self._exclusive()

    def measure(
        self, settings: Settings, loops: dict[str, peers.Loop], missing: dict[str, str]
    ) -> Line:
        """Time all contenders in turns."""
        missing = dict(missing)
        contenders = [*self._limits(), *self._ptwalk(missing), *self._kernels()]
        contenders += self._peers(loops, missing, everybody=self._small or settings.slow_in_dram)
        with self._running_kernel(missing) as running:
            figures = interleave(
                [*contenders, *running],
                rounds=settings.small_rounds if self._small else settings.rounds,
                seconds=settings.seconds,
                settle=self._small,
            )
        tags = {"size": self.size, "request": self.request.name, "mix": MIXES[self.mix]}
        facts = {"bytes": float(self.entries.nbytes), "entries": float(len(self.entries))}
        return Line(NAME, tags, "ns/entry", LIMIT, figures, missing, facts)

    @property
    def _small(self) -> bool:
        return self.size == "L2"

    def _exclusive(self) -> npt.NDArray[np.bool_]:
        """Return one flag for each frame from 0 on, as a user would keep AnonExclusive."""
        if self.request.backing != "anon":
            return np.zeros(1, bool)
        present = self.entries & np.uint64(1) != 0
        frames = self.entries[present] >> np.uint64(12) & np.uint64((1 << 40) - 1)
        flags = np.zeros(int(frames.max(initial=0)) + 1, bool)
        flags[frames] = True
        return flags

    def _restore_words(self) -> None:
        np.copyto(self.words, self.entries)

    def _restore_space(self, *, seen: bool) -> None:
        _core.restore_ptes(self.space.mm._core, self.space.start, self.entries, seen)

    def _limits(self) -> list[Contender]:
        """Return two passes of each, as protect and resolve are two."""
        words, entries = self.words, self.entries
        steps = {
            LIMIT: partial(read_modify_write, words, 1),
            LIMIT_2: partial(read_modify_write, words, 2),
            COPY: partial(_core.copy_words, words, entries, 2),
        }
        return [
            Contender(name, [step], 2 * len(words), self._restore_words)
            for name, step in steps.items()
            if name != LIMIT_2 or (processors() > 1 and not self._small)
        ]

    def _ptwalk(self, missing: dict[str, str]) -> list[Contender]:
        work = 2 * len(self.words)
        seen = partial(self._restore_space, seen=True)
        unseen = partial(self._restore_space, seen=False)
        found = [
            Contender(PTWALK, both(self.space, 1), work, seen),
            Contender(FIRST_LOOK, both(self.space, 1), work, unseen),
        ]
        if processors() > 1:
            found.append(Contender(PTWALK_2, both(self.space, 2), work, seen))
        else:
            missing[PTWALK_2] = "one processor"
        return found

    def _kernels(self) -> list[Contender]:
        def steps(name: str) -> list[Step]:
            core, start, words = self.space.mm._core, self.space.start, self.words
            return [
                lambda: _core.apply_kernel(name, core, start, True, words),
                lambda: _core.apply_kernel(name, core, start, False, words),
            ]

        work = 2 * len(self.words)
        return [
            Contender(kernel(name), steps(name), work, self._restore_words) for name in kernels()
        ]

    def _peers(
        self, loops: dict[str, peers.Loop], missing: dict[str, str], *, everybody: bool
    ) -> list[Contender]:
        """Return the loops that change the entries as the kernels do."""
        found = []
        for name, loop in loops.items():
            if not everybody and name != BRANCH_FREE:
                missing[name] = "slow in DRAM: left out by --quick"
                continue
            if self._agrees(name, loop, missing):
                steps = [partial(loop, self.words, r, self.exclusive) for r in self.rules]
                found.append(Contender(name, steps, 2 * len(self.words), self._restore_words))
        return [*found, *(self._python(missing) if self._small else [])]

    def _agrees(self, name: str, loop: peers.Loop, missing: dict[str, str]) -> bool:
        """Compare what a loop makes of the first tables with what ptwalk makes of them."""
        words = self.entries[: _CHECKED * 512].copy()
        start, length = self.space.start, len(words) * PAGE_SIZE
        _core.restore_ptes(self.space.mm._core, start, words, False)
        for protect, rules in zip((True, False), self.rules, strict=True):
            pages = loop(words, rules, self.exclusive)
            done = self.space.uffd.writeprotect(start, length, protect=protect)
            if pages != done.pages or not np.array_equal(words, self.space.mm.ptes(start, length)):
                missing[name] = "not timed: its result is not ptwalk's"
                return False
        return True

    def _python(self, missing: dict[str, str]) -> list[Contender]:
        """Return plain Python on the first entries; its time is the same for each."""
        entries = self.entries[:_PYTHON_ENTRIES].tolist()
        words = entries.copy()
        flags = self.exclusive.tolist()

        def restore() -> None:
            words[:] = entries

        def loop(array: U64, rules: Rules, _flags: object) -> int:
            listed = array.tolist()
            pages = peers.python_loop(listed, rules, flags)
            array[:] = listed
            return pages

        if not self._agrees(PYTHON, loop, missing):
            return []
        steps = [partial(peers.python_loop, words, r, flags) for r in self.rules]
        return [Contender(PYTHON, steps, 2 * len(words), restore)]

    @contextmanager
    def _running_kernel(self, missing: dict[str, str]) -> Iterator[list[Contender]]:
        """Yield the running kernel's calls, for mixes that it can be brought to quickly."""
        if not self._small or self.mix not in ("present", "none"):
            yield []
            return
        backing: Backed = "anon" if self.request.backing == "anon" else "memfd"
        touched = self.mix == "present"
        with kernel_range(self.space.length, backing, touched=touched) as found:
            if isinstance(found, str):
                missing.update(dict.fromkeys(RUNNING, found))
                yield []
            else:
                yield found.contenders()


def read_modify_write(words: U64, threads: int) -> None:
    """Make two passes of the limit: set the bit that wr-protecting sets."""
    _core.read_modify_write(words, 2**64 - 1, 1 << 10, threads, 2)


def both(space: workload.Workload, threads: int) -> list[Step]:
    """Return the steps that wr-protect and resolve a whole space."""
    wp, start, length = space.uffd.writeprotect, space.start, space.length
    return [
        lambda: wp(start, length, threads=threads),
        lambda: wp(start, length, protect=False, threads=threads),
    ]


def kernel(name: str) -> str:
    """Name the contender that is one leaf kernel alone."""
    return f"kernel {name}"
