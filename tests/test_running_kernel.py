"""The seed's steps on the running kernel, where it allows userfaultfd.

What is asserted holds for every kernel since 5.19, which is the first that write-protects shmem.
"""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest
from live_processes import drop_capabilities, in_thread, refuse
from ptwalk.errors import InvalidArgument, KernelError
from ptwalk.pagemap import PAGE_SIZE, PM_FILE, PM_PRESENT, PM_SWAP, PM_UFFD_WP
from ptwalk.running_kernel import (
    NR_USERFAULTFD,
    UFFD_FEATURE_WP_UNPOPULATED,
    Backed,
    FaultMessage,
    KernelSpace,
    Touch,
    available,
)

REASON = available()
needs_kernel = pytest.mark.skipif(REASON is not None, reason=str(REASON))
LEN = 4 << 20
WRITE_WP = 3


def bits(space: KernelSpace, start: int, pages: int) -> list[int]:
    """Return PRESENT, SWAP, FILE and UFFD_WP of the first pages of a range."""
    keep = np.uint64(PM_PRESENT | PM_SWAP | PM_FILE | PM_UFFD_WP)
    words: list[int] = (space.pagemap(start, pages * PAGE_SIZE) & keep).tolist()
    return words


@needs_kernel
@pytest.mark.parametrize("backing", ["memfd", "shmem"])
def test_the_seeds_story_on_shmem(backing: Backed) -> None:
    armed, marker = PM_PRESENT | PM_FILE | PM_UFFD_WP, PM_SWAP | PM_UFFD_WP
    with KernelSpace() as space:
        start = space.mmap(LEN, backing)
        assert start % (2 << 20) == 0
        page = [start + i * PAGE_SIZE for i in range(4)]
        assert space.access(page[0], write=True) == Touch("done")
        space.register(start, LEN)
        space.writeprotect(start, LEN)
        assert bits(space, start, 1024) == [armed] + 1023 * [marker]

        assert space.access(page[1], write=False) == Touch("done")
        message = FaultMessage(WRITE_WP, page[2])
        assert space.access(page[2] + 8, write=True) == Touch("blocked", message)
        assert bits(space, start, 4) == [armed, armed, armed, marker]

        space.writeprotect(page[2], LEN - 2 * PAGE_SIZE, protect=False)
        space.settle()
        assert space.access(page[3], write=True) == Touch("done")
        present = PM_PRESENT | PM_FILE
        assert bits(space, start, 1024) == [armed, armed, present, present] + 1020 * [0]


@needs_kernel
def test_none_ptes_of_anonymous_memory_stay_none() -> None:
    with KernelSpace() as space:
        start = space.mmap(LEN, "anon")
        space.access(start, write=True)
        space.register(start, LEN)
        space.writeprotect(start, LEN)
        assert bits(space, start, 2) == [PM_PRESENT | PM_UFFD_WP, 0]
        assert space.access(start + PAGE_SIZE, write=True) == Touch("done")


@needs_kernel
def test_wp_unpopulated_marks_them() -> None:
    with KernelSpace() as space:
        if not space.features & UFFD_FEATURE_WP_UNPOPULATED:
            pytest.skip("the kernel has no UFFD_FEATURE_WP_UNPOPULATED (6.4)")
    with KernelSpace(UFFD_FEATURE_WP_UNPOPULATED) as space:
        start = space.mmap(LEN, "anon")
        space.register(start, LEN)
        space.writeprotect(start, LEN)
        assert bits(space, start, 1024) == 1024 * [PM_SWAP | PM_UFFD_WP]


@needs_kernel
def test_unregister_resolves_but_only_wake_wakes() -> None:
    # fs/userfaultfd.c:userfaultfd_unregister wakes VMAs registered for missing pages only.
    with KernelSpace(timeout=0.2) as space:
        start = space.mmap(PAGE_SIZE)
        space.register(start, PAGE_SIZE)
        space.writeprotect(start, PAGE_SIZE)
        assert space.access(start, write=True).outcome == "blocked"
        space.unregister(start, PAGE_SIZE)
        assert bits(space, start, 1) == [PM_PRESENT | PM_FILE]
        with pytest.raises(KernelError, match="1 accesses still sleep"):
            space.settle()
        space.wake(start, PAGE_SIZE)
        space.timeout = 5.0
        space.settle()


@needs_kernel
def test_leaving_ends_what_is_blocked_and_nothing_hangs() -> None:
    threads = threading.active_count()
    with KernelSpace(timeout=0.2) as space:
        start = space.mmap(2 * PAGE_SIZE)
        space.register(start, 2 * PAGE_SIZE)
        space.writeprotect(start, 2 * PAGE_SIZE)
        for address in (start, start + PAGE_SIZE):
            assert space.access(address, write=True).outcome == "blocked"
        with pytest.raises(KernelError, match="2 accesses still sleep") as caught:
            space.settle()
        assert caught.value.errno == errno.ETIMEDOUT
        assert threading.active_count() == threads + 2
        space.timeout = 5.0
    assert threading.active_count() == threads
    space.close()


@needs_kernel
def test_an_access_woken_too_early_reports_again_and_confuses_nobody() -> None:
    with KernelSpace() as space:
        start = space.mmap(2 * PAGE_SIZE)
        space.register(start, 2 * PAGE_SIZE)
        space.writeprotect(start, 2 * PAGE_SIZE)
        assert space.access(start, write=True).outcome == "blocked"
        # The sleeper is woken, and meets a page that is armed again if it is not quick.
        space.writeprotect(start, PAGE_SIZE, protect=False)
        space.writeprotect(start, PAGE_SIZE)
        second = space.access(start + PAGE_SIZE, write=True)
        assert second == Touch("blocked", FaultMessage(WRITE_WP, start + PAGE_SIZE))


@needs_kernel
def test_the_kernels_errors_have_their_errno() -> None:
    with KernelSpace() as space:
        start = space.mmap(LEN)
        with pytest.raises(KernelError) as caught:
            space.writeprotect(start, PAGE_SIZE)
        assert caught.value.errno == errno.ENOENT
        space.register(start, LEN)
        with pytest.raises(KernelError) as caught:
            space.writeprotect(start + 1, PAGE_SIZE)
        text = f"[Errno 22] EINVAL: UFFDIO_WRITEPROTECT: start {start + 1:#018x}"
        assert str(caught.value).startswith(text)
    with pytest.raises(KernelError, match="EINVAL: UFFDIO_API: features 0x8000000000000000"):
        KernelSpace(1 << 63)


@needs_kernel
def test_bad_arguments_never_reach_memory() -> None:
    with KernelSpace() as space:
        start = space.mmap(LEN)
        for address in (start - 1, start + LEN, 0):
            with pytest.raises(InvalidArgument, match="is not mapped here"):
                space.access(address, write=True)
        for length in (0, -PAGE_SIZE, 100):
            with pytest.raises(InvalidArgument, match="positive multiple of 4096"):
                space.mmap(length)
        with pytest.raises(InvalidArgument, match="'disk' is unknown"):
            space.mmap(LEN, "disk")  # type: ignore[arg-type]


@needs_kernel
def test_no_privilege_is_needed() -> None:
    assert in_thread(drop_capabilities, available) is None


@needs_kernel
def test_a_refused_userfaultfd_is_a_reason_and_not_an_error() -> None:
    reason = in_thread(lambda: refuse(NR_USERFAULTFD, errno.EPERM), available)
    assert reason is not None
    assert reason.startswith("[Errno 1] EPERM: userfaultfd: ")
    assert "seccomp" in reason


def test_the_answer_is_a_reason_or_yes() -> None:
    assert REASON is None or REASON.count("\n") == 0
