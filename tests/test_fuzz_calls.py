"""Programs on the public API do what the executor does, and say so as statements."""

from __future__ import annotations

import errno
from collections import Counter

import numpy as np
import ptwalk
import pytest
from ptwalk import fuzz
from ptwalk.fuzz.calls import Done, World
from ptwalk.fuzz.mutate import Programs, mutate
from ptwalk.fuzz.program import TABLE
from ptwalk.fuzz.statements import InexpressibleError

SETUP = "mixed"
EVEN = np.full(len(fuzz.OPERATIONS), 1 / len(fuzz.OPERATIONS))
ACCESSES = {"access", "kernel_access"}


def programs(seed: int, count: int) -> list[bytes]:
    """Return random programs with something of everything."""
    rng = np.random.default_rng(seed)
    made = mutate(rng, Programs.of([b""]), count, EVEN, 12)
    for _ in range(3):
        made = mutate(rng, made, count, EVEN, 12)
    return [made[i] for i in range(count)]


def expected(done: Done, visible: str) -> bool:
    """Whether the executor saw what a statement gave."""
    name, error = done.statement.name, done.error
    if error is not None:
        number = error.errno if isinstance(error, ptwalk.KernelError) else None
        words = visible.split("; ")
        return (errno.errorcode[number] if number else "InvalidArgument") in words
    if done.statement.expression == "None" and name != "exit":
        return visible.startswith("nothing: ")
    if name in ACCESSES:
        return bool(visible.partition(" ")[0].rstrip(";") == done.value.outcome)
    if name in ("copy", "zeropage", "continue", "poison", "move"):
        return f"bytes={done.value:#x}" in visible
    return not any(word[:1] == "E" and word.isupper() for word in visible.split("; "))


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_statements_do_what_the_executor_does(profile: str) -> None:
    executor = fuzz.Executor(profile, SETUP, raw=True)
    setup = fuzz.SETUPS[SETUP]
    seen: Counter[str] = Counter()
    for program in programs(5, 300):
        world = World(profile)
        list(world.run(setup))
        steps = executor.steps(program)
        ran = world.run(program)
        for step in steps:
            try:
                done = next(ran)
            except InexpressibleError:
                break
            assert done.statement.text == step.text
            assert expected(done, step.visible), (step, done, fuzz.to_text(program))
            seen[done.statement.name] += 1
        for name in world.spaces:
            assert world.names[name].validate() == []
    raw = {row.name for row in TABLE if row.raw} - {"change_protection"}
    assert set(seen) == set(fuzz.OPERATIONS) - raw


def test_a_statement_is_what_a_script_would_have() -> None:
    program = fuzz.from_text(
        """
        mmap 0x00007f0000000000 64K rw- shared shmem 0
        userfaultfd - -
        register 0x00007f0000000000 64K wp
        access 0x00007f0000001000 write 0
        fork
        mprotect 0x00007f0000000000 8K r-- mm=1
        """
    )
    world = World("6.18")
    made = [done.statement for done in world.run(program)]
    assert made[0].before == "file = ptwalk.ShmemFile(0x10000, machine=machine)"
    assert made[0].expression == "mm.mmap(0x7f0000000000, 0x10000, 3, 0x11, file, 0x0)"
    assert [(s.target, s.expression, s.space) for s in made[1:]] == [
        ("uffd", "mm.userfaultfd(0x0)", "mm"),
        ("", "uffd.register(0x7f0000000000, 0x10000, 2)", "mm"),
        ("", "mm.access(0x7f0000001000, write=True)", "mm"),
        ("mm1", "mm.fork()", "mm"),
        ("", "mm1.mprotect(0x7f0000000000, 0x2000, 1)", "mm1"),
    ]
    assert world.spaces == ["mm", "mm1"]


def test_what_the_public_api_has_no_call_for_is_said() -> None:
    program = fuzz.from_text("set_pte 0x00007f0000000000 none -")
    with pytest.raises(InexpressibleError, match="set_pte"):
        list(World("6.18").run(program))


def test_odd_arguments_and_many_ranges_are_those_of_the_call() -> None:
    program = fuzz.from_text(
        """
        mmap 0x00007f0000000000 64K rw- shared shmem 1 odd=length
        mmap 0x00007f0000000000 8M rw- populate|shared shmem 0 odd=at|to|length
        munmap 0x00007f0000000000 4K odd=wrap
        mprotect 0x00007f0000000000 1G r-- odd=wrap
        mremap 0x00007f0000000000 4K 0x00007f0000001000 8K - odd=length|to
        mprotect_many 0x00007f0000000000 4K r-- 8K 2 odd=at
        """
    )
    world = World("6.18")
    made = [done.statement for done in world.run(program)]
    assert made[0].before == "file = ptwalk.ShmemFile(0x11000, machine=machine)"
    assert [statement.expression for statement in made] == [
        "mm.mmap(0x7f0000000000, 0x10800, 3, 0x11, file, 0x1000)",
        "mm.mmap(0x7f0000000800, 0x400800, 3, 0x8011, file1, 0x800)",
        "mm.munmap(0x7f0000000000, 0xffff810000001000)",
        "mm.mprotect(0x7f0000000000, 0x1003ffff000, 1)",
        "mm.mremap(0x7f0000000000, 0x1800, 0x2800, 0, 0x7f0000001800)",
        "mm.mprotect_many([(0x7f0000000800, 0x1000), (0x7f0000002800, 0x1000)], 1)",
    ]
