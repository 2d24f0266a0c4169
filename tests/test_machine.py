"""Table frames of a machine: the limit that the user sets, shared tables, memory given back."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, InvalidArgument, KernelError, Machine, ShmemFile

START = 0x100000000000
GIB = 1 << 30
PMD = 2 << 20


def armed_space(
    length: int, *, max_tables: int | None = None
) -> tuple[AddressSpace, ptwalk.Userfaultfd]:
    """Map `length` bytes of shared shmem under 6.18 and register them for wr-protection."""
    mm = AddressSpace(machine=Machine("6.18", max_tables=max_tables))
    mm.mmap(START, length, "rw-", "shared", ShmemFile(length))
    uffd = mm.userfaultfd(features="wp_unpopulated")
    uffd.register(START, length, "wp")
    return mm, uffd


def state(mm: AddressSpace, length: int) -> tuple[object, ...]:
    """Everything that a failed call might have changed."""
    return (mm.stats, mm.count(START, length), [str(vma) for vma in mm.vmas], mm.validate())


def test_64_tib_protected_and_resolved_with_a_few_frames() -> None:
    length = 64 << 40
    mm, uffd = armed_space(length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    armed = uffd.writeprotect(START, length)
    assert armed.pages == armed.none_to_marker == length >> 12
    assert armed.tables_allocated == mm.stats.tables_modelled - 1
    assert mm.stats.tables_modelled == 1 + (length >> 21) + (length >> 30) + (length >> 39)
    assert uffd.writeprotect(START, length, protect=False).marker_to_none == length >> 12
    assert mm.count(START, length) == {"none": length >> 12}
    assert mm.stats.tables_resident < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (1 << 20)  # KiB: 1 GiB
    assert mm.validate() == []


def test_shared_tables_cannot_be_told_from_others() -> None:
    mm, uffd = armed_space(4 * GIB)
    uffd.writeprotect(START, 4 * GIB)
    marker = mm.ptes(START, 4096)[0]
    assert mm.decode(mm.ptes(START, 4096))["kind"][0] == ptwalk.Kind.MARKER
    inside = START + GIB + 5 * PMD
    assert mm.access(inside, write=False).outcome == "done"
    words = mm.ptes(inside - PMD, 3 * PMD)
    assert np.count_nonzero(words != marker) == 1
    assert mm.walk(inside).stopped == mm.walk(inside + PMD).stopped
    assert np.unique(mm.levels(START, 4 * GIB)).tolist() == [1]
    assert mm.count(START, 4 * GIB) == {"present": 1, "marker": (4 * GIB >> 12) - 1}
    mm.madvise(START, 4 * GIB, ptwalk.MADV_DONTNEED)
    assert mm.stats.tables_resident < 12
    assert mm.validate() == []


@pytest.mark.parametrize("value", [0, -1, 1 << 40, 1.5, "many"])
def test_a_limit_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match="max_tables"):
        Machine(max_tables=value)  # type: ignore[arg-type]


def fill(mm: AddressSpace, _: ptwalk.Userfaultfd) -> None:
    mm.set_ptes(START, np.full(200 * 512, 0x25, np.uint64))


CALLS: dict[str, Callable[[AddressSpace, ptwalk.Userfaultfd], object]] = {
    "set_ptes": fill,
    "writeprotect": lambda mm, uffd: uffd.writeprotect(START + 4096, 200 * PMD),
    "fork": lambda mm, uffd: mm.fork(),
    "guard": lambda mm, uffd: mm.madvise(START, 200 * PMD, ptwalk.MADV_GUARD_INSTALL),
    "access": lambda mm, uffd: mm.access(START + 150 * PMD, write=True),
    "copy": lambda mm, uffd: uffd.copy(START + 150 * PMD, 4096),
    "alloc_table": lambda mm, uffd: mm.alloc_table(START + 150 * PMD, "pmd"),
}


@pytest.mark.parametrize("name", CALLS)
def test_at_the_limit_a_call_fails_and_changes_nothing(name: str) -> None:
    mm, uffd = armed_space(GIB, max_tables=32)
    for table in range(29):  # the root and two more above them: none is left
        mm.access(START + table * PMD, write=True)
    before = state(mm, GIB)
    with pytest.raises(KernelError, match=r"limit is 32.*max_tables") as caught:
        CALLS[name](mm, uffd)
    assert caught.value.errno == errno.ENOMEM
    assert state(mm, GIB) == before
    mm.munmap(START, GIB)  # needs no frames
    assert mm.stats.tables_resident <= 10


def test_populating_stops_at_the_limit_and_says_how_far_it_got() -> None:
    mm, _ = armed_space(GIB, max_tables=32)
    with pytest.raises(KernelError, match="limit is 32") as caught:
        mm.populate(START, GIB, write=True)
    assert caught.value.done > 0
    assert mm.count(START, GIB)["present"] == caught.value.done


def test_frames_that_are_free_are_returned_on_request() -> None:
    machine = Machine("6.18")
    mm = AddressSpace(machine=machine)
    mm.mmap(START, GIB, "rw-")
    mm.set_ptes(START, np.full(100 * 512, 0x25, np.uint64))
    machine.trim()  # what an earlier machine left
    assert machine.trim() == 0
    mm.munmap(START, GIB)
    assert machine.trim() >= 100 * 4096
    del mm, machine
    ptwalk.trim()
    assert ptwalk.trim() == 0


def test_a_small_address_space_gets_a_small_arena() -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
import ptwalk
mm = ptwalk.AddressSpace("6.18")
mm.mmap(0x10000000, 1 << 40, "rw-", "shared", ptwalk.ShmemFile(1 << 40))
uffd = mm.userfaultfd(features="wp_unpopulated")
uffd.register(0x10000000, 1 << 40, "wp")
print(uffd.writeprotect(0x10000000, 1 << 40).pages, mm.machine.max_tables)
"""
    environment = {"PYTHONPATH": str(Path(ptwalk.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages, limit = map(int, done.stdout.split())
    assert pages == 1 << 28
    assert limit < (4 << 30) // 4096


def test_threads_of_a_machine_change_no_result() -> None:
    answers = []
    rng = np.random.default_rng(1)
    words = np.where(rng.random(600 * 512) < 0.5, np.uint64(0x25), np.uint64(0))
    addresses = START + rng.integers(0, 700 * PMD, 100_000, dtype=np.uint64)
    for threads in (1, 3):
        mm, uffd = armed_space(2 * GIB)
        mm.machine.threads = threads
        assert mm.machine.threads == threads
        mm.set_ptes(START, words)
        results = [uffd.writeprotect(START, 2 * GIB), uffd.writeprotect(START, 2 * GIB)]
        answers.append((results, mm.stats, mm.ptes(START + 4096, GIB), mm.translate(addresses)))
    assert answers[0][:2] == answers[1][:2]
    np.testing.assert_array_equal(answers[0][2], answers[1][2])
    np.testing.assert_array_equal(answers[0][3], answers[1][3])
    with pytest.raises(InvalidArgument, match="threads 0"):
        AddressSpace().machine.threads = 0


def test_threads_of_one_call() -> None:
    mm, uffd = armed_space(GIB)
    before = mm.machine.threads
    mm.set_ptes(START, np.full(512 * 512, 0x25, np.uint64))
    one, two, again = (uffd.writeprotect(START, GIB, threads=n) for n in (1, 2, 1))
    assert one.pages == two.pages == 1 << 18
    assert two == again  # nothing is left to flush
    words = [mm.ptes(START, GIB, threads=n) for n in (1, 2, None)]
    np.testing.assert_array_equal(words[0], words[1])
    np.testing.assert_array_equal(words[0], words[2])
    assert mm.mprotect(START, GIB, "r--", threads=2).present == 512 * 512
    assert mm.populate(START, 16 * PMD, write=False, threads=2) == 16 * 512
    assert mm.translate([START], threads=2).tolist() == mm.translate([START]).tolist()
    assert mm.machine.threads == before
    for wrong in (0, -1, "two", 1 << 20):
        with pytest.raises(InvalidArgument, match="threads"):
            mm.ptes(START, 4096, threads=wrong)  # type: ignore[arg-type]
