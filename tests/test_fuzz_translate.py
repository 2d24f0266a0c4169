"""Programs as system calls: what is whole has the right calls, and the rest is said not to be."""

from __future__ import annotations

import pytest
from ptwalk import fuzz
from ptwalk.fuzz.program import LENGTHS, MAX_LENGTH, PLACES
from ptwalk.fuzz.translate import FIRST, LAST, RANGES, Operation, Translation, translate

PAGE = "0x00007f0000000000"
UFFD = f"userfaultfd - -\nregister {PAGE} 64K wp"


def made(text: str, setup: str = "empty") -> Translation:
    return translate(fuzz.SETUPS[setup], fuzz.from_text(text))


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        ("events-16", f"munmap {PAGE} 4K"),
        ("empty", "userfaultfd - move|as_they_are\nclose"),  # it may have been refused
        ("empty", "userfaultfd event_fork -\nfork"),  # which would sleep
        ("empty", f"register {PAGE} 4K wp"),  # there is none
        ("empty", f"mmap {PAGE} 64K rw- shared anon 0\nmmap {PAGE} 64K rw- shared file0 0"),
        ("empty", f"mmap {PAGE} 64K rw- - hugetlb 0"),
        ("empty", f"mmap {PAGE} 64K rw- - regular 0\nmadvise {PAGE} 64K willneed"),  # reads ahead
        ("empty", f"fork\nuserfaultfd - - mm=1\nexit mm=1\nregister {PAGE} 4K wp"),
        ("empty", "exit"),  # the last one stays
        ("empty", "\n".join(["fork"] * 16)),  # that would be 17
        ("anon-16", f"mremap {PAGE} 0 {PAGE} 4K -"),  # ptwalk does not duplicate
        ("anon-16", f"mlock {PAGE} 4K\nmremap {PAGE} 4K {PAGE} 1G -"),
        ("empty", "file_truncate 0 0"),  # there is none
        ("shmem-16", "file_punch_hole 0 0 0"),  # does nothing, which fallocate(2) refuses
        ("anon-16", f"madvise {PAGE} 4K pageout"),
        ("anon-16", f"reclaim {PAGE} 4K"),
    ],
)
def test_what_no_process_does_is_not_whole(setup: str, text: str) -> None:
    assert not made(text, setup).whole


@pytest.mark.parametrize("setup", list(fuzz.SETUPS))
def test_setups_are_whole_where_a_process_can_make_them(setup: str) -> None:
    cannot = setup in ("events-16", "mixed")
    assert made("", setup).whole == (not cannot)


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        (f"kernel_access {PAGE} write", [("kernel_access", FIRST, True)]),
        (f"access {PAGE} write 0", [("access", FIRST, True)]),
        (
            f"access_many {PAGE} 8K read_write",
            [("access_many", FIRST, 2, 2)],
        ),
        (f"populate {PAGE} 8K write", [("madvise", FIRST, 0x2000, 23)]),
        (f"{UFFD}\nwake {PAGE} 4K\nclose", [("wake", FIRST, 0x1000), ("close",)]),
        (
            f"mmap {PAGE} 4K rw- locked|populate|noreserve|hint anon 0",
            [("mmap", FIRST, 0x1000, 3, 0xE022, None, 0)],
        ),
        (
            f"mmap {PAGE} 4K rw- fixed_noreplace anon 1",
            [("mmap", FIRST, 0x1000, 3, 0x100022, None, 0x1000)],
        ),
        (f"mmap {PAGE} 8M rw- populate anon 0", [("mmap", FIRST, MAX_LENGTH, 3, 0x8032, None, 0)]),
        (
            f"munmap {PAGE} 4K odd=at|length\nmadvise {PAGE} 8K dontneed odd=wrap",
            [
                ("munmap", FIRST + 0x800, 0x1800),
                ("madvise", FIRST, (1 << 64) + 0x2000 - FIRST, 4),
            ],
        ),
        (
            f"mmap {PAGE} 256K rw- shared shmem 1",
            [("make_file", "0", "shmem", 0x41000), ("mmap", FIRST, 0x40000, 3, 0x11, "0", 0x1000)],
        ),
        (
            f"mmap {PAGE} 4K r-- - shmem 0\nmmap {PAGE} 4K r-- - shmem 0\nfile_truncate 1 2",
            [
                ("make_file", "0", "shmem", 0x1000),
                ("make_file", "1", "shmem", 0x1000),
                ("mmap", FIRST, 0x1000, 1, 0x12, "0", 0),
                ("mmap", FIRST, 0x1000, 1, 0x12, "1", 0),
                ("truncate", "0", 0x1000),
            ],
        ),
    ],
)
def test_whole_programs_have_the_calls_that_they_name(
    text: str, operations: list[Operation]
) -> None:
    found = made(text)
    assert found.whole
    steps = [step for step in found.steps if step.operation[0] not in ("register", "userfaultfd")]
    assert [step.operation for step in steps] == operations
    assert all(step.text or step.operation[0] == "make_file" for step in steps)


def test_operations_name_processes_and_userfaultfds() -> None:
    found = made(f"""
    userfaultfd - -
    fork
    userfaultfd - - mm=1
    fork mm=1
    exit
    access {PAGE} read 0
    access {PAGE} read 0 mm=1
    register {PAGE} 4K wp uffd=1
    """)
    assert found.whole
    assert found.processes == 3
    assert found.spaces == [1, 2]
    assert [(step.operation[0], step.process, step.uffd) for step in found.steps] == [
        ("userfaultfd", 0, 0),
        ("fork", 0, 0),
        ("userfaultfd", 1, 1),
        ("fork", 1, 0),
        ("exit", 0, 0),
        ("access", 1, 0),
        ("access", 2, 0),
        ("register", 1, 1),
    ]


def test_all_places_lie_between_the_limits() -> None:
    longest = max(LENGTHS)
    for start, pages in RANGES:
        assert FIRST <= start < start + pages * 4096 < LAST
    assert PLACES[-1] - PLACES[0] + FIRST + longest < LAST


def test_a_setup_and_a_program_are_as_long_as_they_are() -> None:
    last = f"madvise {PAGE} 4K dontneed"
    text = "\n".join([f"access {PAGE} write 0"] * 63 + [last])
    whole = made(text, "mixed")
    assert whole.steps[-1].text == last
