"""Random programs of system calls on the running kernel and on ptwalk, compared after every call.

The profile is judged by the very kernel that it models, in corners that no recorded trace visits:
errno and value, VMAs with their flags, the upper bits of pagemap and the page tables allocated.
"""

from __future__ import annotations

import errno
import json
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import ptwalk
import pytest
from ptwalk.errors import KernelError
from ptwalk.pagemap import PAGE_SIZE, PM_SOFT_DIRTY, Pagemap
from ptwalk.running_kernel import KernelSpace, available

RELEASE = "6.18.44"  # what the profile 6.18 models, stable fixes included
PROGRAMS, STEPS = 120, 25
PAGES = 48  # around a PMD boundary
NEAR = 0x1000_0000_0000 + (2 << 20) - PAGES // 2 * PAGE_SIZE
FAR = NEAR + (1 << 30)
RANGES = [(NEAR, PAGES), (FAR, PAGES)]
SIGBUS, WP_UNPOPULATED, WP_ASYNC = 1 << 7, 1 << 13, 1 << 15  # nothing may block
GUARD_INSTALL, GUARD_REMOVE = 102, 103
PRIVATE, SHARED, FIXED, ANONYMOUS = 2, 1, 0x10, 0x20
ANSWER = "errno", "value", "VMAs", "pagemap", "VmPTE"
Operation = tuple[Any, ...]


def reason() -> str | None:
    """Say why the running kernel is no judge of the profile, None if it is."""
    if not platform.release().startswith(RELEASE):
        return f"the running kernel is {platform.release()}; the profile 6.18 models {RELEASE}"
    if refused := available():
        return refused
    with KernelSpace() as space, Pagemap.open() as pagemap:
        start = space.mmap(PAGE_SIZE)
        if int(pagemap.words(start, PAGE_SIZE)[0]) & PM_SOFT_DIRTY:
            return "the running kernel has CONFIG_MEM_SOFT_DIRTY, the profile has not"
    return None


class Running:
    """The other side: a process that does operations on the running kernel."""

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("program_kernel.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *words: Any) -> list[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer: list[Any] = json.loads(self._process.stdout.readline())
        return answer


class Model:
    """ptwalk's side, with answers of the same form."""

    def __init__(self, features: int) -> None:
        self.mm = ptwalk.AddressSpace("6.18")
        self.uffd = self.mm.userfaultfd(features, user_mode_only=True)
        self.files: dict[str, ptwalk.ShmemFile] = {}

    def file(self, name: str) -> ptwalk.ShmemFile:
        if name not in self.files:
            self.files[name] = ptwalk.ShmemFile(40 * PAGE_SIZE, machine=self.mm.machine)
        return self.files[name]

    def perform(self, name: str, *args: Any) -> Any:
        mm, uffd = self.mm, self.uffd
        match name, args:
            case "mmap", (start, length, prot, flags, file, offset):
                backing = None if file is None else self.file(file)
                return mm.mmap(start, length, prot, flags, backing, offset).start
            case "mremap", _:
                return mm.mremap(*args).start
            case "access", (address, write):
                mm.kernel_access(address, write=write)
            case "scan", (start, length, flags, masks, limits):
                names = "inverted", "mask", "anyof", "returned", "max_pages", "vec_len"
                words = dict(zip(names, [*masks, *limits], strict=True))
                found = mm.pagemap_scan(start, length, flags=flags, **words)
                return [[[int(word) for word in row] for row in found.ranges], found.walk_end]
            case (("truncate" | "write" | "punch_hole"), (file, *rest)):
                getattr(self.file(file), name)(*rest)
            case "register", _:
                return uffd.register(*args)
            case "unregister", _:
                uffd.unregister(*args)
            case (("writeprotect" | "copy" | "zeropage" | "continue_" | "poison" | "move"), _):
                done = getattr(uffd, name)(*args[:-1], mode=args[-1])
                return None if name == "writeprotect" else done
            case _:
                getattr(mm, name)(*args)
        return None

    def answer(self, name: str, *args: Any) -> list[Any]:
        failed, value = 0, None
        try:
            value = self.perform(name, *args)
        except KernelError as error:
            failed = error.errno
            if name in ("copy", "zeropage", "continue_", "poison", "move"):
                value = error.done
        return [failed, value, *self.state()]

    def state(self) -> list[Any]:
        vmas = [
            [vma.start, vma.end, vma.permissions, vma.offset, int(vma.vm_flags)]
            for vma in self.mm.vmas
        ]
        words = [
            int(word) >> 55
            for start, pages in RANGES
            for word in self.mm.pagemap(start, pages * PAGE_SIZE)
        ]
        return [vmas, words, 4 * self.mm.stats.tables_modelled]


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


def first_difference(running: Running, seed: int) -> str | None:
    """Run a program on both sides until they differ; say where, None if they do not."""
    rng = random.Random(seed)
    features = SIGBUS | rng.choice([0, WP_UNPOPULATED, WP_ASYNC])
    *_, tables = running.ask("start", features, RANGES)
    model, done = Model(features), []
    own_tables = model.state()[-1]
    for operation, _ in zip(operations(rng), range(STEPS), strict=False):
        done.append(operation)
        got = model.answer(*operation)
        if got[0] == errno.EINTR:  # a guard install that the kernel would try for ever
            return None
        want = running.ask(*operation)
        if operation[0] == "mremap" and _went_elsewhere(want[1]) and _went_elsewhere(got[1]):
            return None  # where the kernel picks is random
        want[-1], tables = want[-1] - tables, want[-1]
        got[-1], own_tables = got[-1] - own_tables, got[-1]
        for what, a, b in zip(ANSWER, want, got, strict=True):
            if a != b:
                lines = "\n".join(map(str, done))
                return f"seed {seed}, features {features:#x}: {what}\n{lines}\n{a}\n{b}"
    assert model.mm.validate() == []
    return None


def _went_elsewhere(start: int | None) -> bool:
    inside = [at <= start < at + pages * PAGE_SIZE for at, pages in RANGES] if start else [True]
    return not any(inside)


REASON = reason()


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_random_programs_end_as_on_the_running_kernel() -> None:
    with Running() as running:
        for seed in range(PROGRAMS):
            # The other side's own heap may take a page table; not twice at the same place.
            found = first_difference(running, seed) and first_difference(running, seed)
            assert found is None, found
