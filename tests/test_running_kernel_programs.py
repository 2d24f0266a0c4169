"""Random programs of system calls on the running kernel and on ptwalk, compared after every call.

The profile is judged by the very kernel that it models, in corners that no recorded trace visits:
errno and value, VMAs with their flags, the upper bits of pagemap and the page tables allocated.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from ptwalk.fuzz.running import Running, first_difference, reason
from ptwalk.fuzz.translate import WP_ASYNC, WP_UNPOPULATED, Operation, Step
from ptwalk.pagemap import PAGE_SIZE

PROGRAMS, STEPS = 120, 25
PAGES = 48  # around a PMD boundary
NEAR = 0x1000_0000_0000 + (2 << 20) - PAGES // 2 * PAGE_SIZE
FAR = NEAR + (1 << 30)
RANGES = [(NEAR, PAGES), (FAR, PAGES)]
GUARD_INSTALL, GUARD_REMOVE = 102, 103
PRIVATE, SHARED, FIXED, ANONYMOUS = 2, 1, 0x10, 0x20


def operations(rng: random.Random) -> Iterator[Operation]:
    """Draw operations without end; the first maps most of the near range."""

    def part(most: int = 10) -> tuple[int, int]:
        first = rng.randrange(PAGES)
        start = rng.choice([NEAR] * 7 + [FAR])
        return start + first * PAGE_SIZE, min(rng.randint(1, most), PAGES - first) * PAGE_SIZE

    def mapping(start: int, length: int, prot: int) -> Operation:
        sharing = rng.choice([PRIVATE, SHARED])
        flags, file = sharing | FIXED, rng.choice([None, "one", "two"])
        if file is None:
            return "mmap", start, length, prot, flags | ANONYMOUS, None, 0
        offset = (start - NEAR) % (1 << 30) if rng.random() < 0.7 else 0
        return "mmap", start, length, prot, flags, file, offset

    def moving() -> Operation:
        start, length = part()
        target, other = part(14)
        flags = rng.choice([0, 3, 3, 3, 7, 5])
        if flags == 0:
            return "mremap", start, length, other, 0, 0
        new_length = other if flags == 3 and rng.random() < 0.3 else length
        return "mremap", start, length, new_length, flags, target

    def scanning() -> Operation:
        masks = [rng.choice(bits) for bits in ([0, 0, 1, 2, 8, 16, 511], [0, 0, 1, 2, 8, 16])]
        masks += [rng.choice([0, 0, 1, 10, 20]), rng.choice([511, 255, 2, 8, 1])]
        limits = [rng.choice([0, 0, 1, 3, 7]), rng.choice([512, 512, 1, 2, 4])]
        return "scan", NEAR, PAGES * PAGE_SIZE, rng.randrange(4), masks, limits

    def filing() -> Operation:
        file, page = rng.choice(["one", "two"]), rng.randrange(40) * PAGE_SIZE
        return rng.choice(
            [
                ("write", file, page + 5, rng.choice([1, 5000])),
                ("truncate", file, page + rng.choice([0, 5])),
                ("punch_hole", file, page, 4 * PAGE_SIZE),
            ]
        )

    prots = [3, 3, 3, 1, 0, 2, 4, 5, 7]
    advices = [4, 4, 4, 8, 8, 9, 10, 11, 15, 18, 19, 20, 22, 23, 24]
    advices += [GUARD_INSTALL, GUARD_INSTALL, GUARD_REMOVE]
    draws: list[tuple[int, Callable[[], Operation]]] = [
        (22, lambda: ("access", part()[0], rng.random() < 0.6)),
        (4, lambda: mapping(*part(20), rng.choice(prots))),
        (4, lambda: ("munmap", *part())),
        (12, lambda: ("mprotect", *part(), rng.choice(prots))),
        (10, moving),
        (10, lambda: ("madvise", *part(), rng.choice(advices))),
        (4, lambda: (rng.choice(["mlock", "mlock", "munlock"]), *part())),
        (8, lambda: ("register", *part(25), rng.choice([2, 2, 2, 1, 3, 4, 6, 5, 7]))),
        (4, lambda: ("unregister", *part())),
        (8, lambda: ("writeprotect", *part(), rng.choice([1, 1, 1, 0, 0, 2]))),
        (2, lambda: ("copy", *part(), rng.choice([0, 0, 2, 1]))),
        (2, lambda: (rng.choice(["zeropage", "poison"]), *part(), 0)),
        (1, lambda: ("continue_", *part(), rng.choice([0, 2]))),
        (2, lambda: ("move", part()[0], *part(), rng.choice([0, 2]))),
        (3, scanning),
        (4, filing),
    ]
    yield mapping(NEAR + 4 * PAGE_SIZE, 40 * PAGE_SIZE, 3)
    while True:
        yield rng.choices([draw for _, draw in draws], [weight for weight, _ in draws])[0]()


def difference(running: Running, seed: int) -> str | None:
    """Run a program on both sides until they differ; say where, None if they do not."""
    rng = random.Random(seed)
    features = rng.choice([0, WP_UNPOPULATED, WP_ASYNC])
    program: list[Operation] = [("userfaultfd", features, True, False)]
    program += itertools.islice(operations(rng), STEPS)
    found = first_difference(running, map(Step, program), RANGES)
    if found is None:
        return None
    lines = "\n".join(map(str, program[: found.operation + 1]))
    return f"seed {seed}\n{lines}\n{found}"


REASON = reason()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_random_programs_end_as_on_the_running_kernel() -> None:
    with Running() as running:
        for seed in range(PROGRAMS):
            # The other side's own heap may take a page table; not twice at the same place.
            found = difference(running, seed) and difference(running, seed)
            assert found is None, found
