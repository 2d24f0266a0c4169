"""ptwalk.testing: the strategies reach each class, the machine finds what is wrong."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ptwalk
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test
from paths import REPO
from ptwalk import AddressSpace, InvalidArgument, Kind, fuzz, testing
from ptwalk.testing.machine import AREA
from ptwalk.testing.strategies import AROUND_PMD

PAGE, START = 4096, 0x7F0000000000
PACKAGES = Path(ptwalk.__file__).parents[1]
MUTANTS = REPO / "build" / "mutants" / "python"

QUICK = settings(database=None, deadline=None, derandomize=True)
FEW = settings(QUICK, max_examples=50)


def least(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    """Return the smallest example that hypothesis finds."""
    return find(strategy, condition, settings=settings(QUICK, max_examples=5000))


# --- strategies -----------------------------------------------------------------------------------
KINDS = {
    "5.12": {"NONE", "PRESENT", "SWAP", "MIGRATION"},
    "uffd-wp-v2": {"NONE", "PRESENT", "SWAP", "MIGRATION", "MARKER"},
    "6.18": {"NONE", "PRESENT", "SWAP", "MIGRATION", "MARKER"},
}


@pytest.mark.parametrize(("profile", "names"), KINDS.items())
def test_entries_have_every_kind_of_the_profile(profile: str, names: set[str]) -> None:
    for name in names:
        word = least(
            testing.entries(profile),
            lambda word: decoded(profile, word)["kind"] == Kind[name],  # noqa: B023
        )
        assert 0 <= word < 1 << 64


def decoded(profile: str, word: int) -> Any:
    return ptwalk.decode(np.array([word], np.uint64), profile=profile)[0]


def test_entries_shrink_to_none() -> None:
    assert least(testing.entries("6.18"), lambda _: True) == 0


def test_a_frame_without_bit_p_is_stored_inverted() -> None:
    def is_low_protnone(word: int) -> bool:
        return word & 0x101 == 0x100 and decoded("6.18", word)["pfn"] <= 64

    word = least(testing.entries("6.18"), is_low_protnone)
    assert decoded("6.18", word)["kind"] == Kind.PRESENT
    assert word >> 12 & 0xFFFFFFFF == 0xFFFFFFFF - int(decoded("6.18", word)["pfn"])


@pytest.mark.parametrize("name", fuzz.OPERATIONS)
def test_operations_read_back(name: str) -> None:
    @settings(QUICK, max_examples=10)
    @given(testing.operations([name]))
    def check(program: bytes) -> None:
        assert fuzz.decode(program)["op"].tolist() == [fuzz.OPERATIONS.index(name)]
        assert fuzz.canonical(program) == program
        assert fuzz.from_text(fuzz.to_text(program)) == program

    check()


def test_every_operation_is_drawn() -> None:
    drawn: set[int] = set()

    @settings(QUICK, max_examples=100)
    @given(testing.programs(min_size=20, max_size=40))
    def collect(program: bytes) -> None:
        drawn.update(fuzz.decode(program)["op"].tolist())

    collect()
    assert drawn == set(range(len(fuzz.OPERATIONS)))


@FEW
@given(testing.programs(raw=False, max_size=6))
def test_programs_run_and_violate_nothing(program: bytes) -> None:
    assert fuzz.decode(program).shape == (len(program) / 8,)
    assert fuzz.Executor("6.18").run(program).violations == ()


@FEW
@given(testing.programs(["fork", "exit"], min_size=1, max_size=3))
def test_programs_are_of_the_operations_that_were_named(program: bytes) -> None:
    names = [fuzz.OPERATIONS[op] for op in fuzz.decode(program)["op"]]
    assert set(names) <= {"fork", "exit"}
    assert 1 <= len(names) <= 3


def test_a_program_shows_itself_as_text() -> None:
    program = least(testing.programs(["munmap"], min_size=1), lambda _: True)
    assert repr(program) == "ptwalk.fuzz.from_text('munmap 0x00007f0000000000 0')"
    assert eval(repr(program), {"ptwalk": ptwalk}) == program


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="operation 'unmap' is not known"):
        testing.operations(["unmap"])
    with pytest.raises(InvalidArgument, match="no operation is left"):
        testing.operations(["set_pte"], raw=False)
    with pytest.raises(InvalidArgument, match="pass whole pages, at least 2"):
        testing.ranges(START, PAGE, min_pages=2)
    with pytest.raises(InvalidArgument, match=r"profile '5\.13' is not known"):
        testing.address_spaces("5.13")
    with pytest.raises(InvalidArgument, match="max_areas 0 is not positive; pass an int from 1"):
        testing.address_spaces(max_areas=0)
    with pytest.raises(InvalidArgument, match=r"area_pages 1\.5 is not positive"):
        testing.address_spaces(area_pages=1.5)  # type: ignore[arg-type]


@settings(QUICK, max_examples=20)
@given(testing.address_spaces(area_pages=1))
def test_areas_may_be_one_page(mm: AddressSpace) -> None:
    assert {vma.length % PAGE for vma in mm.vmas} == {0}


@FEW
@given(testing.ranges(START, 8 * PAGE, min_pages=2))
def test_ranges_lie_inside_the_area(where: tuple[int, int]) -> None:
    start, length = where
    assert start % PAGE == length % PAGE == 0
    assert start >= START
    assert length >= 2 * PAGE
    assert start + length <= START + 8 * PAGE


def test_ranges_reach_both_ends() -> None:
    both = testing.ranges(START, 8 * PAGE)
    assert least(both, lambda where: sum(where) == START + 8 * PAGE and where[1] == PAGE)
    assert least(both, lambda where: where == (START, 8 * PAGE))


@pytest.mark.parametrize("kind", ["none", "present", "swap"])
@pytest.mark.parametrize("vma", ["anon", "shmem", "regular"])
def test_address_spaces_have_mappings_and_entries_of_each_kind(kind: str, vma: str) -> None:
    def has_both(mm: AddressSpace) -> bool:
        return any(v.kind == vma and kind in mm.count(v.start, v.length) for v in mm.vmas)

    assert least(testing.address_spaces("6.18"), has_both).validate() == []


def test_address_spaces_are_of_every_profile() -> None:
    for profile in ptwalk.profiles():
        assert least(testing.address_spaces(), lambda mm: mm.profile == profile)  # noqa: B023


# --- the machine ----------------------------------------------------------------------------------
class Sound(testing.AddressSpaceMachine):
    """Adds what always holds: a VMA's entries are counted without a rest."""

    @invariant()
    def counts_add_up(self) -> None:
        for mm in self.spaces:
            for vma in mm.vmas:
                assert sum(mm.count(vma.start, vma.length).values()) * PAGE == vma.length


class Wrong(testing.AddressSpaceMachine):
    """Claims what holds until a wr-protect meets a page that is not there."""

    @invariant()
    def no_marker_is_ever_left(self) -> None:
        for mm in self.spaces:
            assert not any("marker" in mm.count(vma.start, vma.length) for vma in mm.vmas), "marker"


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_the_machine_finds_nothing(profile: str) -> None:
    Sound.profile = profile
    run_state_machine_as_test(
        Sound, settings=settings(QUICK, max_examples=15, stateful_step_count=30)
    )


def test_the_machine_finds_a_wrong_invariant() -> None:
    budget = settings(QUICK, max_examples=50, phases=[Phase.generate])  # shrinking takes minutes
    with pytest.raises(AssertionError, match="marker"):
        run_state_machine_as_test(Wrong, settings=budget)


CLAIMS: dict[str, Callable[[testing.AddressSpaceMachine], bool]] = {
    "every userfaultfd is open": lambda run: not any(uffd.closed for uffd in run.uffds),
    "nothing migrates": lambda run: "migration" not in kinds(run),
    "nothing is locked": lambda run: (
        not any(vma.vm_flags & ptwalk.Vm.LOCKED for mm in run.spaces for vma in mm.vmas)
    ),
    "every mapping lies in the area": lambda run: all(
        AROUND_PMD <= vma.start < AROUND_PMD + AREA for mm in run.spaces for vma in mm.vmas
    ),
    "no file is empty": lambda run: all(file.size for file in run.files),
}
"""What a rule of the machine breaks, each another one."""


def kinds(run: testing.AddressSpaceMachine) -> set[str]:
    """Return the kinds of entries that there are."""
    every = [mm.count(vma.start, vma.length) for mm in run.spaces for vma in mm.vmas]
    return {kind for one in every for kind in one}


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_machine_closes_migrates_locks_moves_and_truncates(claim: str) -> None:
    class Claims(testing.AddressSpaceMachine):
        profile = "6.18"

        @invariant()
        def holds(self) -> None:
            assert CLAIMS[claim](self), claim

    budget = settings(QUICK, max_examples=200, phases=[Phase.generate])
    with pytest.raises(AssertionError, match=claim):
        run_state_machine_as_test(Claims, settings=budget)


@pytest.mark.parametrize("name", ["writeprotect", "copy", "zeropage", "continue_"])
def test_calls_on_userfaultfds_are_not_always_refused(name: str) -> None:
    class Never(testing.AddressSpaceMachine):
        profile = "6.18"

        def attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = super().attempt(call, *args, **kwargs)
            assert result is None or call.__name__ != name, f"{name} succeeds"
            return result

    budget = settings(QUICK, max_examples=500, phases=[Phase.generate])
    with pytest.raises(AssertionError, match=f"{name} succeeds"):
        run_state_machine_as_test(Never, settings=budget)


@pytest.mark.parametrize("profile", ["6.1", "6.18"])
def test_the_machine_makes_every_call(profile: str) -> None:
    tried: set[str] = set()

    class Log(testing.AddressSpaceMachine):
        def attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            tried.add(call.__name__)
            return super().attempt(call, *args, **kwargs)

    Log.profile = profile
    run_state_machine_as_test(Log, settings=settings(QUICK, max_examples=30))
    assert tried >= {
        *("mmap", "munmap", "mprotect", "madvise", "mremap", "mlock", "munlock", "fork"),
        *("populate", "kernel_access", "userfaultfd", "register", "unregister", "writeprotect"),
        *("copy", "zeropage", "continue_", "poison", "move", "wake", "read"),
    }


class Poisoned(testing.AddressSpaceMachine):
    """Is refused with an errno that Python has no name for."""

    @initialize()
    def populate_poison(self) -> None:
        mm = AddressSpace(machine=self.machine)
        vma = mm.mmap(None, PAGE, prot="rw-", flags="private|anonymous")
        uffd = mm.userfaultfd(features="poison")
        uffd.register(vma.start, PAGE, mode="missing")
        uffd.poison(vma.start, PAGE)
        assert self.attempt(mm.madvise, vma.start, PAGE, "populate_write") is None


def test_an_errno_without_a_name_is_part_of_a_run() -> None:
    budget = settings(QUICK, max_examples=1, stateful_step_count=1)
    run_state_machine_as_test(Poisoned, settings=budget)


RUN_MACHINE = """
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from ptwalk.testing import AddressSpaceMachine

budget = settings(
    max_examples=300, stateful_step_count=30, derandomize=True, database=None, deadline=None,
    phases=[Phase.generate],
)
run_state_machine_as_test(AddressSpaceMachine, settings=budget)
"""


@pytest.mark.skipif(
    not any(MUTANTS.glob("ptwalk/_core*.so")),
    reason="no build with planted bugs; cmake --preset mutants makes one",
)
@pytest.mark.parametrize(
    "mutant", ["", "zap_keeps_mapping", "zap_keeps_slot", "unmap_keeps_markers"]
)
def test_the_machine_finds_a_planted_bug(mutant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_MACHINE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(MUTANTS), "PTWALK_MUTANT": mutant},
    )
    assert (done.returncode != 0) == bool(mutant), done.stderr
    said = "an entry in a hole" if mutant == "unmap_keeps_markers" else "mm.validate() == []"
    assert not mutant or said in done.stderr


def test_without_hypothesis_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "hypothesis.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-c", "import ptwalk.testing"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGES)])},
    )
    assert done.returncode == 1
    assert "pip install ptwalk[fuzz]" in done.stderr


# --- a test of a user's own -----------------------------------------------------------------------
class DirtyLog(set[int]):
    """Stands for the code under test."""

    def on_message(self, msg: ptwalk.UffdMsg) -> None:
        self.add(msg.address // PAGE)


def log_holds_exactly_the_written_pages(
    profile: str, before: list[int], after: list[int]
) -> tuple[set[int], set[int]]:
    """Return the log and the pages that were written."""
    mm, ram, log = AddressSpace(profile=profile), START, DirtyLog()
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    mm.mmap(ram, 4 << 20, rights, mmap.MAP_SHARED, ptwalk.ShmemFile(4 << 20))
    for p in before:
        mm.access(ram + p * PAGE, write=True)
    with mm.userfaultfd() as uffd:
        uffd.register(ram, 4 << 20, "wp")
        uffd.writeprotect(ram, 4 << 20)
        for p in after:
            while mm.access(ram + p * PAGE, write=True).outcome == "blocked":
                (msg,) = uffd.read()
                log.on_message(msg)
                uffd.writeprotect(msg.address, PAGE, protect=False)
    return log, {ram // PAGE + p for p in after}


PAGES = st.lists(st.integers(0, 1023))


@settings(deadline=None)
@given(st.sampled_from(["6.1", "6.12", "6.18"]), PAGES, PAGES)
def test_log_holds_exactly_the_written_pages(
    profile: str, before: list[int], after: list[int]
) -> None:
    log, written = log_holds_exactly_the_written_pages(profile, before, after)
    assert log == written


def test_under_v2_hypothesis_finds_the_least_lost_write() -> None:
    def loses(drawn: tuple[str, list[int], list[int]]) -> bool:
        log, written = log_holds_exactly_the_written_pages(*drawn)
        return log != written

    profiles = st.sampled_from(["6.1", "6.12", "6.18", "uffd-wp-v2"])
    assert least(st.tuples(profiles, PAGES, PAGES), loses) == ("uffd-wp-v2", [], [0])
    with pytest.raises(NoSuchExample):
        find(
            st.tuples(st.sampled_from(["6.1", "6.12", "6.18"]), PAGES, PAGES),
            loses,
            settings=settings(FEW, suppress_health_check=list(HealthCheck)),
        )
