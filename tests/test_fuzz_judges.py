"""Judges see what is wrong and only that; what is wrong is put there by stand-ins."""

from __future__ import annotations

from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import fuzz
from ptwalk.fuzz import leaf_model
from ptwalk.fuzz.calls import ADDRESSES, WINDOWS, World
from ptwalk.fuzz.judges import Invariants, Kernels, entries, prefixes, run_all
from ptwalk.fuzz.minimise import minimise
from ptwalk.fuzz.model_judge import Model
from ptwalk.fuzz.mutate import Programs, mutate
from ptwalk.fuzz.program import ProgramLike

SETUP = "shmem-16"
EVEN = np.full(len(fuzz.OPERATIONS), 1 / len(fuzz.OPERATIONS))
NO_ONE = frozenset[str]()


def some(count: int = 400, seed: int = 1) -> Programs:
    rng = np.random.default_rng(seed)
    made = mutate(rng, Programs.of([b""]), count, EVEN, 20)
    for _ in range(4):
        made = mutate(rng, made, count, EVEN, 20)
    return made


PROTECT = fuzz.from_text(
    """
    access 0x00007f0000000000 write 0
    access 0x00007f0000002000 read 0
    writeprotect 0x00007f0000000000 64K wp
    mprotect 0x00007f0000000000 64K r--
    mprotect 0x00007f0000001000 8K rw-
    writeprotect 0x00007f0000000000 64K -
    numa 0x00007f0000000000 64K
    """
)


def test_programs_of_all_lengths_are_run_as_one_by_one() -> None:
    executor, programs = fuzz.Executor("6.18", SETUP), some(60)
    assert len(set(programs.lengths.tolist())) > 5
    batch = run_all(executor, programs)
    for i in range(len(programs)):
        result = executor.run(programs[i])
        assert (batch.digest[i], batch.visible[i]) == (result.digest, result.visible)
        assert batch.coverage[i].tolist() == np.minimum(result.coverage, 255).tolist()
    assert run_all(executor, programs, coverage=False).coverage.shape == (60, 0)


def test_prefixes() -> None:
    assert prefixes(b"") == []
    assert prefixes(b"a" * 8 + b"b") == [b"a" * 8, b"a" * 8 + b"b"]
    assert len(prefixes(bytes(8 * 100))) == fuzz.MAX_OPS


class Broken(fuzz.Executor):
    """An executor that reports a violation wherever there is an mprotect."""

    def _bits(self, program: ProgramLike) -> int:
        number = fuzz.OPERATIONS.index("mprotect")
        return int(any(op["op"] % len(fuzz.OPERATIONS) == number for op in fuzz.decode(program)))

    def run(self, program: ProgramLike) -> fuzz.RunResult:
        names = fuzz.VIOLATIONS[:1] if self._bits(program) else ()
        return super().run(program)._replace(violations=names)

    def run_batch(self, programs: Any, *, coverage: bool = True) -> fuzz.BatchResult:
        rows = [bytes(program) for program in programs]
        bits = np.array([self._bits(row) for row in rows], np.uint64)
        return super().run_batch(programs, coverage=coverage)._replace(violations=bits)


def test_invariants_names_the_violation_and_where_it_comes() -> None:
    judge, programs = Invariants(Broken("6.18", SETUP), SETUP), some(100)
    batch = run_all(Broken("6.18", SETUP), programs)
    ranks = judge.suspects(programs, batch, np.zeros(100, np.bool_), NO_ONE)
    assert 0 < np.count_nonzero(ranks) < 100
    found = judge(PROTECT)
    assert found is not None
    assert (found.kind, found.operation) == (fuzz.VIOLATIONS[0], "mprotect")
    assert found.program == PROTECT[: 4 * 8]
    assert found.states[0].startswith("6.18  mprotect 0x00007f0000000000 64K r--: pages=")
    assert judge.same(found)(found.program)
    assert not judge.same(found)(PROTECT[: 3 * 8])
    smallest = judge(minimise(judge.same(found), found.program))
    assert smallest is not None
    assert smallest.key == found.key
    assert len(smallest.program) == 8
    assert judge(PROTECT[: 3 * 8]) is None


def test_invariants_says_which_entries_changed_and_what_validate_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = "0x7f0000000000"
    program = fuzz.from_text(f"access {page} write 0\nmprotect {page} 4K r--")
    both = (dict(entries(fuzz.Executor("6.18", SETUP), program[:end]))[page] for end in (8, 16))
    monkeypatch.setattr(ptwalk.AddressSpace, "validate", lambda _: ["an entry is wrong"])
    found = Invariants(Broken("6.18", SETUP), SETUP)(program)
    assert found is not None
    before, after = both
    assert before != after
    assert found.states[1:] == (
        f"{page}  before {before:#018x}  after {after:#018x}",
        "validate: an entry is wrong",
    )


def test_entries_are_those_of_the_public_api() -> None:
    program = PROTECT + fuzz.from_text("fork\naccess 0x00007f0000003000 write 0 mm=1")
    world = World("6.18")
    for _ in world.run(fuzz.SETUPS[SETUP] + program):
        pass
    for number, mm in enumerate(world.names[name] for name in world.spaces):
        words = np.concatenate([mm.ptes(start, length) for start, length in WINDOWS]).tolist()
        told = [word for at, word in entries(fuzz.Executor("6.18", SETUP), program)]
        assert told[number * len(words) :][: len(words)] == words
    assert len(told) == 2 * len(ADDRESSES)
    assert list(entries(fuzz.Executor("6.18", SETUP), bytes(8 * fuzz.MAX_OPS))) == []


@pytest.mark.skipif(len(ptwalk.kernels()) < 2, reason="this processor runs the scalar kernel only")
def test_kernels_names_the_entries_that_differ() -> None:
    def make(name: str) -> fuzz.Executor:  # another setup stands for another kernel
        return fuzz.Executor("6.18", SETUP if name == "scalar" else "empty", kernel=name)

    found = Kernels(make, SETUP)(PROTECT)
    assert found is not None
    other = ptwalk.kernels()[1]
    words = (dict(entries(make(name), found.program)) for name in ("scalar", other))
    one, two = (each["0x7f0000000000"] for each in words)
    assert found.states[2] == f"0x7f0000000000  scalar {one:#018x}  {other} {two:#018x}"


class OtherKernel(fuzz.Executor):
    """An executor whose digests are another kernel's wherever there is an mprotect."""

    def run(self, program: ProgramLike) -> fuzz.RunResult:
        result = super().run(program)
        return result._replace(digest=result.digest ^ Broken._bits(self, program))  # type: ignore[arg-type]

    def run_batch(self, programs: Any, *, coverage: bool = True) -> fuzz.BatchResult:
        rows = [bytes(program) for program in programs]
        bits = np.array([Broken._bits(self, row) for row in rows], np.uint64)  # type: ignore[arg-type]
        batch = super().run_batch(programs, coverage=coverage)
        return batch._replace(digest=batch.digest ^ bits)


@pytest.mark.skipif(len(ptwalk.kernels()) < 2, reason="this processor runs the scalar kernel only")
def test_kernels_names_the_kernel_that_differs() -> None:
    def make(name: str) -> fuzz.Executor:
        return (fuzz.Executor if name == "scalar" else OtherKernel)("6.18", SETUP, kernel=name)

    judge, programs = Kernels(make, SETUP), some(100)
    ranks = judge.suspects(
        programs, run_all(make("scalar"), programs), np.zeros(100, np.bool_), NO_ONE
    )
    assert 0 < np.count_nonzero(ranks) < 100
    found = judge(PROTECT)
    assert found is not None
    assert found.against == ptwalk.kernels()[1]
    assert found.operation == "mprotect"
    assert found.program == PROTECT[: 4 * 8]
    assert judge.same(found)(found.program)
    assert judge(PROTECT[: 3 * 8]) is None
    assert judge(b"") is None


@pytest.mark.parametrize("profile", ptwalk.profiles())
@pytest.mark.parametrize("setup", ["mixed", "private-16", "boundary"])
def test_nothing_is_wrong_with_the_profiles(profile: str, setup: str) -> None:
    executor, programs = fuzz.Executor(profile, setup), some(2000, 3)
    batch = run_all(executor, programs)
    none = np.zeros(len(programs), np.bool_)
    invariants = Invariants(executor, setup)
    kernels = Kernels(lambda name: fuzz.Executor(profile, setup, kernel=name), setup)
    assert not invariants.suspects(programs, batch, none, NO_ONE).any()
    assert not kernels.suspects(programs, batch, none, NO_ONE).any()
    model = Model(profile, setup)
    rows = np.flatnonzero(model.suspects(programs, batch, none, NO_ONE))[:60]
    assert len(rows) == 60
    for row in rows.tolist():
        assert (found := model(programs[row])) is None, (found, fuzz.to_text(programs[row]))


@pytest.mark.parametrize("operation", ["writeprotect", "mprotect", "numa"])
@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.18"])
def test_the_model_sees_a_leaf_step_that_is_wrong(
    profile: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is made wrong instead of the core; either way they differ."""
    judge = Model(profile, SETUP)
    assert judge(PROTECT) is None
    right = leaf_model.leaf_step
    flag = {
        "writeprotect": leaf_model.MM_CP_UFFD_WP,
        "mprotect": 0,
        "numa": leaf_model.MM_CP_PROT_NUMA,
    }[operation]

    def wrong(name: str, word: int, newprot: int, flags: int, **more: Any) -> leaf_model.Step:
        new, pages, counter = right(name, word, newprot, flags, **more)
        asked = flags & ~leaf_model.MM_CP_TRY_CHANGE_WRITABLE == flag
        return (new ^ leaf_model.UFFD_WP if word and asked else new), pages, counter

    monkeypatch.setattr(leaf_model, "leaf_step", wrong)
    found = judge(PROTECT)
    assert found is not None
    assert found.operation == operation
    assert judge.same(found)(found.program)
    assert len(found.states) == 3


MANY = """
access_many 0x00007f0000000000 64K write
mprotect_many 0x00007f0000000000 4K r-- 12K 5
writeprotect_many 0x00007f0000001000 8K wp 12K 4
"""


def test_the_model_judges_each_of_many_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Model("6.18", SETUP)
    assert judge(fuzz.from_text(MANY)) is None
    real = ptwalk.AddressSpace.mprotect_many

    def wrong_in_the_last(mm: ptwalk.AddressSpace, ranges: Any, prot: int) -> Any:
        done = real(mm, ranges, prot)
        mm.set_pte(ranges[-1][0], mm.entry(ranges[-1][0]) ^ leaf_model.UFFD_WP)
        return done

    monkeypatch.setattr(ptwalk.AddressSpace, "mprotect_many", wrong_in_the_last)
    found = judge(fuzz.from_text(MANY))
    assert found is not None
    assert found.operation == "mprotect_many"
    assert found.states[0].startswith("0x7f000000c000 before")


def test_the_model_sees_entries_outside_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Model("6.18", SETUP)
    real = ptwalk.AddressSpace.mprotect

    def also_next_door(mm: ptwalk.AddressSpace, start: int, length: int, prot: int) -> Any:
        mm.set_pte(start + length + 4096, 0)
        return real(mm, start, length, prot)

    program = fuzz.from_text(
        """
        access_many 0x00007f0000000000 64K write
        mprotect 0x00007f0000000000 4K r--
        """
    )
    assert judge(program) is None
    monkeypatch.setattr(ptwalk.AddressSpace, "mprotect", also_next_door)
    found = judge(program)
    assert found is not None
    assert found.states[0].startswith("0x7f0000002000 before")
