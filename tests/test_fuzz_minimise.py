"""Minimising keeps the property, drops what it does not need, and is deterministic."""

from __future__ import annotations

import numpy as np
import pytest
from ptwalk import InvalidArgument, fuzz

NOISE = """\
mprotect 0x00007f0000002000 8K r--
madvise 0x00007f0000000000 64K cold
fork
access 0x00007f0000005000 write 3 mm=1
"""


def test_what_the_property_does_not_need_goes() -> None:
    program = fuzz.from_text(NOISE + "munmap 0x00007f0000003000 16K\n" + NOISE)
    ex = fuzz.Executor("6.18", "shmem-16")
    done = ex.branches.index("operation/munmap: done")
    least = fuzz.minimise(ex, program, lambda r: bool(r.coverage[done]))
    assert fuzz.to_text(least) == "munmap 0x00007f0000000000 4K"


def test_a_predicate_may_judge_the_bytes() -> None:
    def has_two_forks(program: bytes) -> bool:
        return fuzz.to_text(program).count("fork") == 2

    least = fuzz.minimise(has_two_forks, fuzz.from_text(NOISE + NOISE))
    assert fuzz.to_text(least) == "fork\nfork"
    with pytest.raises(InvalidArgument, match="let the predicate itself judge"):
        fuzz.minimise(has_two_forks, least, lambda _: True)


def test_the_result_is_the_same_on_every_run_and_cannot_be_made_less() -> None:
    rng = np.random.default_rng(3)
    ex = fuzz.Executor("6.18", "mixed")
    program = rng.bytes(40 * 8)
    wanted = ex.branches.index("operation/access: done")

    def accesses_twice(r: fuzz.RunResult) -> bool:
        return int(r.coverage[wanted]) >= 2

    program += fuzz.encode([{"op": "access"}, {"op": "access", "page": 1}])
    least = fuzz.minimise(ex, program, accesses_twice)
    assert fuzz.minimise(ex, program, accesses_twice) == least
    assert fuzz.minimise(ex, least, accesses_twice) == least
    assert len(fuzz.decode(least)) == 2


def test_a_program_without_the_property_is_refused() -> None:
    ex = fuzz.Executor("6.18")
    with pytest.raises(InvalidArgument, match="violates nothing"):
        fuzz.minimise(ex, fuzz.from_text(NOISE))
    with pytest.raises(InvalidArgument, match="does not have the property"):
        fuzz.minimise(ex, b"", lambda r: r.operations > 0)
