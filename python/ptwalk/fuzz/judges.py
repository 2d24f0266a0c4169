"""Judges: who says whether a program shows something wrong.

Each has a fast look at batches and a slow one at single programs. They are independent of each
other, so that a campaign takes as many as it wants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ..machine import kernels
from .calls import World
from .corpus import Mask
from .executor import SETUPS, Executor
from .findings import Finding
from .mutate import MAX_OPS, OP_BYTES, Programs
from .program import OPERATIONS, PLACES, decode, encode, members, op_number, operation_of
from .statements import InexpressibleError
from .task import Batch

Ranks = npt.NDArray[np.int64]

CHANGES = (
    "mprotect",
    "mprotect_many",
    "writeprotect",
    "writeprotect_many",
    "numa",
    "change_protection",
)
_CLOSELY = 4
_SHOWN = 8  # entries that a finding names
_BEFORE = re.compile("(0x[0-9a-f]+) to ")  # in the outcome of an access


def run_all(executor: Executor, programs: Programs, *, coverage: bool = True) -> Batch:
    """Run programs of different lengths."""
    done = executor.run_batch(programs.rows(), coverage=coverage)
    none = np.zeros((len(programs), 0), np.uint8)
    reached = none if done.coverage is None else done.coverage
    return Batch(done.digest, done.visible, reached, done.violations)


def has_any(programs: Programs, names: Iterable[str]) -> Mask:
    """Return which programs have any of some operations."""
    inside = np.arange(programs.ops.shape[1]) < programs.lengths[:, None]
    numbers = [op_number(name) for name in names]
    named = np.isin(programs.ops[:, :, 0] % len(OPERATIONS), numbers) & inside
    return np.asarray(named.any(axis=1))


def prefixes(program: bytes) -> list[bytes]:
    """Return the beginnings of a program, from its first operation to all of it."""
    nr = min(-(-len(program) // OP_BYTES), MAX_OPS)
    return [program[: OP_BYTES * (i + 1)] for i in range(nr)]


def first_row(differs: Mask) -> int | None:
    """Return the first row that differs, None where none does."""
    rows = np.flatnonzero(differs)
    return int(rows[0]) if rows.size else None


def name_of(program: bytes, i: int) -> str:
    """Return the name of the i-th operation of a program."""
    return operation_of(members(decode(program)[i])).name


def entries(executor: Executor, program: bytes) -> Iterator[tuple[str, int]]:
    """Yield address and word of the entries at all places that a program leaves.

    An access tells the entry that it finds; each is made in a run of its own. A program that has no
    room for one more operation yields nothing.
    """
    program += bytes(-len(program) % OP_BYTES)
    if len(program) >= MAX_OPS * OP_BYTES:
        return
    spaces = 1 + sum(name_of(program, i) == "fork" for i in range(len(prefixes(program))))
    for mm in range(min(spaces, 16)):
        for page, place in enumerate(PLACES):
            access = encode([{"op": "access", "mm": mm, "page": page}])
            step = executor.steps(program + access)[-1]
            found = _BEFORE.search(step.outcome)
            yield f"{place:#x}" + (f" mm={mm}" if mm else ""), int(found[1], 16) if found else 0


def _unlike(
    names: tuple[str, str], one: Iterable[tuple[str, int]], other: Iterable[tuple[str, int]]
) -> list[str]:
    """Return a line for each entry that differs, the first ones if there are many."""
    lines = [
        f"{at}  {names[0]} {a:#018x}  {names[1]} {b:#018x}"
        for (at, a), (_, b) in zip(one, other, strict=False)
        if a != b
    ]
    more = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"and {more} entries more"] if more > 0 else [])


def _validated(profile: str, program: bytes) -> list[str]:
    """Return what validate() says after a program; nothing where the public API cannot run it."""
    world = World(profile)
    try:
        for _ in world.run(program):
            pass
    except InexpressibleError:
        return []
    return [f"validate: {line}" for space in world.spaces for line in world.names[space].validate()]


class Invariants:
    """What must hold in every state: the violations that executors find by themselves.

    Parameters
    ----------
    executor : Executor
        One that judges each operation; that is slow, so it runs some of the programs only.
    setup : str
        What programs start from.
    """

    name = "invariants"
    limit = 8

    def __init__(self, executor: Executor, setup: str) -> None:
        self._executor, self._setup = executor, setup
        self._plain = Executor(executor.profile, setup, raw=False)

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> Ranks:
        """Take programs with a violation; look closely at what is new, and at every fourth."""
        ranks = np.asarray(batch.violations != 0, np.int64)
        rows = np.flatnonzero(fresh | (np.arange(len(programs)) % _CLOSELY == 0))
        some = Programs(programs.ops[rows], programs.lengths[rows])
        ranks[rows] |= run_all(self._executor, some, coverage=False).violations != 0
        return ranks

    def __call__(self, program: bytes) -> Finding | None:
        """Return the first violation of a program, cut off where it is first seen."""
        result = self._executor.run(program)
        if not result.violations:
            return None
        beginnings = prefixes(program)
        batch = self._executor.run_batch(beginnings, coverage=False)
        seen = first_row(batch.violations != 0)
        assert seen is not None
        cut = beginnings[seen]
        violation = self._executor.run(cut).violations[0]
        step = self._plain.steps(cut)[-1]
        sides = (entries(self._plain, program) for program in (cut[:-OP_BYTES], cut))
        return Finding(
            judge=self.name,
            kind=violation,
            title=f"{violation.replace('_', ' ')} after {name_of(cut, seen)}",
            program=cut,
            profile=self._executor.profile,
            setup=self._setup,
            operation=name_of(cut, seen),
            states=(
                f"{self._executor.profile}  {step.text}: {step.outcome}",
                *_unlike(("before", "after"), *sides),
                *_validated(self._executor.profile, SETUPS[self._setup] + cut),
            ),
        )

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge it; nothing known hides anything."""
        return self(program)

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for the violation."""
        return lambda program: finding.kind in self._executor.run(program).violations


class Kernels:
    """The leaf kernels against scalar: digests must be equal.

    Parameters
    ----------
    make : callable
        Returns the executor that uses a leaf kernel, by its name.
    """

    name = "kernels"
    limit = 4

    def __init__(self, make: Callable[[str], Executor], setup: str) -> None:
        self._scalar = make("scalar")
        self._others = {name: make(name) for name in kernels() if name != "scalar"}
        self._all = [self._scalar, *self._others.values()]
        self._setup = setup

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> Ranks:
        """Take programs whose digests differ from the batch's, which one kernel made.

        The kernels share the programs that change protections; those that are new run on each.
        """
        ranks: Ranks = np.zeros(len(programs), np.int64)
        changed = has_any(programs, (*CHANGES, "register", "unregister", "close"))
        turn = np.arange(len(programs)) % len(self._all)
        for number, executor in enumerate(self._all):
            rows = np.flatnonzero(changed & (fresh | (turn == number)))
            some = Programs(programs.ops[rows], programs.lengths[rows])
            differs = run_all(executor, some, coverage=False).digest != batch.digest[rows]
            ranks[rows] |= differs
        return ranks

    def __call__(self, program: bytes) -> Finding | None:
        """Return the first kernel that differs, the program cut off where it does."""
        beginnings = prefixes(program)
        if not beginnings:
            return None
        expected = self._scalar.run_batch(beginnings, coverage=False).digest
        for name, executor in self._others.items():
            got = executor.run_batch(beginnings, coverage=False).digest
            row = first_row(got != expected)
            if row is not None:
                return self._finding(name, executor, beginnings[row], row)
        return None

    def _finding(self, name: str, executor: Executor, cut: bytes, row: int) -> Finding:
        sides = {"scalar": self._scalar, name: executor}
        steps = ((side, each.steps(cut)[-1]) for side, each in sides.items())
        words = (entries(each, cut) for each in sides.values())
        return Finding(
            judge=self.name,
            kind="kernels differ",
            title=f"{name} differs from scalar in {name_of(cut, row)}",
            program=cut,
            profile=executor.profile,
            setup=self._setup,
            against=name,
            operation=name_of(cut, row),
            states=(
                *(f"{side}  {step.text}: {step.outcome}" for side, step in steps),
                *_unlike(("scalar", name), *words),
            ),
        )

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge it; nothing known hides anything."""
        return self(program)

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for digests that differ on the finding's kernel."""
        other = self._others[finding.against]
        return lambda program: other.run(program).digest != self._scalar.run(program).digest
