"""The judge that asks the running kernel: no false finding at the edges of what it compares."""

from __future__ import annotations

import pytest
from ptwalk import fuzz
from ptwalk.fuzz.running import RunningKernel, reason

REASON = reason()
PAGE = "0x00007f0000000000"


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    ("setup", "text"),
    [
        # the last window of places, beyond the first PGD entry
        ("empty", "mmap 0x00007f8000000000 4K --- - anon 0\nmunmap 0x00007f8000000000 4K"),
        ("empty", "mmap 0x00007f7ffffff000 8M rw- - anon 0\naccess 0x00007f800000f000 write 0"),
        ("shmem-16", f"mremap {PAGE} 0 {PAGE} 4K -"),  # ptwalk does not duplicate
        ("empty", f"mmap {PAGE} 256K rw- shared shmem 0\naccess 0x00007f0000030000 write 0"),
        ("shmem-16", f"mmap {PAGE} 4K rw- hint anon 0\nmmap {PAGE} 4K rw- fixed_noreplace anon 0"),
        ("shmem-16", f"mmap {PAGE} 64K rw- locked shmem 2\nfile_truncate 3 1\nfile_write 2 4M 1"),
        ("anon-16", f"access_many {PAGE} 16K write_every_other\npopulate {PAGE} 64K read"),
        ("anon-16", f"madvise {PAGE} 4K willneed\nmadvise {PAGE} 4K unknown"),
        ("missing-16", f"copy {PAGE} 32K wp\nwake {PAGE} 0\nclose\ncopy {PAGE} 4K -\nclose"),
    ],
)
def test_nothing_is_found(setup: str, text: str) -> None:
    judge = RunningKernel("6.18", setup)
    found = judge(fuzz.from_text(text))
    assert found is None, found


def test_another_profile_is_skipped_with_its_reason() -> None:
    judge = RunningKernel("6.12", "empty")
    assert judge.skipped == "the running kernel is no judge of the profile 6.12"
    assert judge(fuzz.from_text(f"access {PAGE} read 0")) is None
