"""Checkpoints from Python: the state comes back, and objects of later say that they are gone."""

from __future__ import annotations

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, InvalidArgument, ShmemFile

START, PAGE = 0x7F0000000000, 4096
LENGTH = 64 * PAGE


def armed(profile: str) -> tuple[AddressSpace, ptwalk.Userfaultfd]:
    mm = AddressSpace(profile)
    mm.mmap(START, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
    mm.access(START, write=True)
    uffd = mm.userfaultfd()
    uffd.register(START, LENGTH, "wp")
    return mm, uffd


def state(mm: AddressSpace) -> tuple[object, ...]:
    return (
        mm.ptes(START, LENGTH).tolist(),
        mm.stats,
        [str(vma) for vma in mm.vmas],
        mm.pending,
        mm.validate(),
    )


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.1", "6.12", "6.18"])
def test_the_same_steps_from_a_checkpoint_end_alike(profile: str) -> None:
    mm, uffd = armed(profile)
    before, cp = state(mm), mm.checkpoint()
    ends = []
    for _ in range(3):
        uffd.writeprotect(START, LENGTH)
        mm.access(START + 3 * PAGE, write=True)
        mm.mprotect(START + PAGE, 5 * PAGE, "r--")
        mm.madvise(START, 2 * PAGE, ptwalk.MADV_DONTNEED)
        child = mm.fork()
        child.munmap(START, LENGTH)
        ends.append((state(mm), [str(m) for m in uffd.read()]))
        mm.restore(cp)
        assert state(mm) == before
        assert uffd.read() == []
    assert ends[0] == ends[1] == ends[2]


def test_what_was_made_after_the_checkpoint_is_gone() -> None:
    mm, _ = armed("6.18")
    cp = mm.checkpoint()
    child, late = mm.fork(), mm.userfaultfd()
    file = ShmemFile(PAGE)
    mm.mmap(START + LENGTH, PAGE, "rw-", "shared", file)
    mm.restore(cp)
    with pytest.raises(InvalidArgument, match="address space is gone"):
        child.access(START, write=True)
    with pytest.raises(InvalidArgument, match=f"userfaultfd {late.number} is gone"):
        late.writeprotect(START, PAGE)
    again = mm.userfaultfd()
    assert again.number == late.number
    assert file.machine is None
    mm.mmap(START + LENGTH, PAGE, "rw-", "shared", file)
    assert file.machine is mm.machine


def test_a_space_that_only_the_checkpoint_knows_lives_on() -> None:
    mm, _ = armed("6.18")
    child = mm.fork()
    cp = mm.checkpoint()
    shared = mm.pages(START, PAGE)["mapcount"].tolist()
    del child
    assert mm.pages(START, PAGE)["mapcount"].tolist() == shared
    mm.restore(cp)
    assert mm.validate() == []


def test_checkpoints_stack_and_void() -> None:
    mm, uffd = armed("6.18")
    first = mm.checkpoint()
    uffd.writeprotect(START, LENGTH)
    second, entries = mm.checkpoint(), mm.ptes(START, LENGTH)
    uffd.writeprotect(START, LENGTH, protect=False)
    mm.restore(second)
    np.testing.assert_array_equal(mm.ptes(START, LENGTH), entries)
    mm.machine.restore(first)
    with pytest.raises(InvalidArgument, match="checkpoint is void"):
        mm.restore(second)


def test_a_checkpoint_belongs_to_its_machine() -> None:
    cp = AddressSpace("6.18").checkpoint()
    with pytest.raises(InvalidArgument, match="checkpoint is void"):
        AddressSpace("6.18").restore(cp)
    with pytest.raises(InvalidArgument, match="is no Checkpoint"):
        AddressSpace("6.18").restore("yesterday")  # type: ignore[arg-type]


def test_a_failed_restore_changes_nothing() -> None:
    mm, _ = armed("6.18")
    before = state(mm)
    with pytest.raises(InvalidArgument):
        mm.restore(AddressSpace("6.18").checkpoint())
    assert state(mm) == before
