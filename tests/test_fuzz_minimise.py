"""Minimising keeps the property, drops what it does not need, and is deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ptwalk import InvalidArgument, fuzz
from ptwalk.fuzz.against import Against

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


def test_what_makes_arguments_odd_goes_first() -> None:
    tried: list[str] = []

    def keeps(program: bytes) -> bool:
        tried.append(fuzz.to_text(program))
        return "munmap" in tried[-1]

    least = fuzz.minimise(keeps, fuzz.from_text("munmap 0x00007f0000000000 8K odd=at|length mm=1"))
    assert fuzz.to_text(least) == "munmap 0x00007f0000000000 0"
    assert "munmap 0x00007f0000000000 8K mm=1" in tried
    assert not any("odd" in text and "8K" not in text for text in tried)


def test_a_predicate_may_judge_the_bytes() -> None:
    def has_two_forks(program: bytes) -> bool:
        return fuzz.to_text(program).count("fork") == 2

    least = fuzz.minimise(has_two_forks, fuzz.from_text(NOISE + NOISE))
    assert fuzz.to_text(least) == "fork\nfork"
    with pytest.raises(InvalidArgument, match="let the predicate itself judge"):
        fuzz.minimise(has_two_forks, least, lambda _: True)


REOPENED = """\
access 0x00007f0000005000 write 0
writeprotect 0x00007f0000004000 8K wp
mprotect 0x00007f0000004000 8K -w-
access 0x00007f0000005000 write 0"""


def test_what_operations_have_in_common_becomes_less_in_all_of_them() -> None:
    judge = Against(
        lambda profile: fuzz.Executor(profile, "shmem-16", raw=False),
        "uffd-wp-v2",
        "6.18",
        "shmem-16",
    )
    program = fuzz.from_text(REOPENED)
    finding = judge.look(program, frozenset())
    assert finding is not None
    least = fuzz.minimise(judge.same(finding), program)
    assert fuzz.to_text(least) == (
        "access 0x00007f0000000000 read 0\n"
        "writeprotect 0x00007f0000000000 4K wp\n"
        "mprotect 0x00007f0000000000 4K -w-\n"
        "access 0x00007f0000000000 write 0"
    )


def test_places_keep_their_distances_on_their_way_down() -> None:
    def touches_two_pages_in_a_row(program: bytes) -> bool:
        places = fuzz.decode(program)["page"].tolist()
        return len(places) == 2 and places[1] == places[0] + 1

    program = fuzz.encode([("access", 0, 37), ("access", 0, 38)])
    least = fuzz.minimise(touches_two_pages_in_a_row, program)
    assert fuzz.decode(least)["page"].tolist() == [0, 1]


def test_a_choice_becomes_the_smallest() -> None:
    def names_advice_5_or_14(program: bytes) -> bool:  # from 14 on: 0, 7, 12 and 13 are tried
        return fuzz.decode(program)["arg"].tolist() in ([5], [14])

    program = fuzz.encode([{"op": "madvise", "arg": 14}])
    least = fuzz.minimise(names_advice_5_or_14, program)
    assert fuzz.decode(least)["arg"].tolist() == [5]


def test_each_flag_that_is_not_needed_goes() -> None:
    def has_both(program: bytes) -> bool:
        text = fuzz.to_text(program)
        return "event_fork" in text and "poison" in text

    program = fuzz.from_text("userfaultfd event_fork|sigbus|poison|wp_async -")
    least = fuzz.minimise(has_both, program)
    assert fuzz.to_text(least) == "userfaultfd event_fork|poison -"


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


def test_wrong_arguments_are_named() -> None:
    ex = fuzz.Executor("6.18")
    calls: list[tuple[tuple[Any, ...], str]] = [
        (("x", b""), "executor 'x' is no Executor and cannot be called; pass one"),
        ((ex, b"", 5), "property 5 cannot be called; pass a predicate"),
        ((ex, "fork"), "program 'fork' is not bytes-like; use ptwalk.fuzz.from_text"),
    ]
    for arguments, said in calls:
        with pytest.raises(InvalidArgument, match=said):
            fuzz.minimise(*arguments)


def test_no_program_is_run_twice() -> None:
    runs = []

    def has_a_fork(program: bytes) -> bool:
        runs.append(program)
        return "fork" in fuzz.to_text(program)

    fuzz.minimise(has_a_fork, fuzz.from_text(NOISE))
    assert len(set(runs)) >= len(runs) - 1  # the program itself may be its canonical form
