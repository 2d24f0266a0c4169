"""The judge that asks the running kernel: no false finding at the edges of what it compares."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ptwalk import cli_fuzz, fuzz
from ptwalk.fuzz.bench import Workbench, work
from ptwalk.fuzz.campaign import Campaign, Spec
from ptwalk.fuzz.running import RunningKernel, reason
from ptwalk.fuzz.task import Before

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
        ("mixed", f"access_many {PAGE} 320K write_read mm=1\naccess_many {PAGE} 320K read"),
        ("two-uffds", f"fork\nwriteprotect {PAGE} 64K wp uffd=1\nclose uffd=1\nexit mm=1"),
        ("large", f"writeprotect {PAGE} 1G wp\nmunmap {PAGE} 4G\nmmap {PAGE} 4G rw- - anon 0"),
        ("empty", f"mmap {PAGE} 64K rw- shared regular 0\nfile_read 3 4K 0\naccess {PAGE} read 0"),
        ("empty", f"mmap {PAGE} 64K r-- shared readonly 0\nmprotect {PAGE} 64K rw-"),
        ("anon-16", f"madvise {PAGE} 4K random\nmadvise {PAGE} 4K hugepage\nread"),
        (
            "anon-16",
            f"""
            access_many {PAGE} 64K write
            fork
            fork mm=1
            exit mm=1
            access {PAGE} write 0 mm=1
            madvise {PAGE} 8K dontneed
            userfaultfd wp_unpopulated - mm=1
            register {PAGE} 64K wp uffd=1
            writeprotect {PAGE} 64K wp uffd=1
            access_many {PAGE} 64K write mm=1
            exit
            access {PAGE} read 0
            """,
        ),
        ("shmem-16", f"mprotect_many {PAGE} 4K r-- 8K 9\nwriteprotect_many {PAGE} 4K wp 12K 5"),
        ("anon-16", f"mremap {PAGE} 64K {PAGE} 4K - odd=wrap\nmlock {PAGE} 4K odd=at|length"),
        ("anon-16", f"mprotect {PAGE} 4K r-- odd=wrap\nmprotect {PAGE} 4K r-- odd=length"),
        ("anon-16", f"mmap {PAGE} 4K rw- hint anon 0 odd=at\nmmap {PAGE} 4K rw- - shmem 0 odd=to"),
        ("missing-16", f"copy {PAGE} 4K - odd=length\nwriteprotect {PAGE} 4K wp odd=wrap"),
        ("missing-16", f"access {PAGE} write 0 odd=at\nmove {PAGE} {PAGE} 4K - odd=to"),
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


def test_a_worker_that_cannot_ask_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """As on a cluster, where only the machine that begins a campaign was asked."""
    spec = Spec("6.12", ("empty",), judges=("running-kernel",))
    features = Workbench(spec, "empty").features
    nothing = Before((), np.packbits(np.zeros(features, np.bool_)).tobytes(), frozenset())
    result = work(spec, 0, nothing)
    said = "judge running-kernel skipped: the running kernel is no judge of the profile 6.12"
    batches = result.counts[said]
    assert batches > 0
    assert "judge running-kernel" not in result.counts  # of no program was it asked
    campaign = Campaign(spec, lambda *_: result, features)
    with ThreadPoolExecutor(1) as pool:
        campaign.run(pool, workers=1, tasks=1)
    cli_fuzz.tell_end(campaign, features, None)
    assert f"{said} ({batches} batches)" in capsys.readouterr().out
