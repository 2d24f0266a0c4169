"""C programs of findings compile, and do on the running kernel what the executor says."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ptwalk import fuzz
from ptwalk.fuzz.c_program import c_program_of
from ptwalk.fuzz.findings import Finding
from ptwalk.fuzz.running import reason

PAGE = "0x00007f0000000000"
V2, NEW, SETUP = "uffd-wp-v2", "6.18", "shmem-16"

COMPILES = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
RUNS = pytest.mark.skipif(reason() is not None, reason=str(reason()))

HZ1 = f"""
access {PAGE} write 0
writeprotect {PAGE} 4K wp
mprotect {PAGE} 64K r--
mprotect {PAGE} 64K rw-
access {PAGE} write 0
"""


def test_no_c_program_for_what_no_process_can_do() -> None:
    for text in ("reclaim {} 4K", "migrate_start {} 4K", "numa {} 4K", "set_pte {} none -"):
        program = fuzz.from_text(text.format(PAGE))
        assert c_program_of(Finding("against", "kind", "title", program, V2, SETUP)) is None


def compiled(tmp_path: Path, source: bytes) -> Path:
    path, program = tmp_path / "show.c", tmp_path / "show"
    path.write_bytes(source)
    command = [
        "cc",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O1",
        "-pthread",
        "-o",
        str(program),
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def shown(tmp_path: Path, setup: str, program: bytes) -> str:
    """Return what the C program of a finding prints."""
    source = c_program_of(Finding("against", "kind", "title", program, NEW, setup))
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True)
    return done.stdout


@COMPILES
def test_every_operation_that_c_has_compiles_and_runs(tmp_path: Path) -> None:
    text = f"""
    mmap {PAGE} 64K rw- shared shmem 0
    mmap 0x00007f0000010000 64K rw- - anon 0
    mmap 0x00007f0000020000 64K rw- shared file0 0
    userfaultfd wp_unpopulated -
    register {PAGE} 128K missing|wp
    copy {PAGE} 4K wp
    zeropage 0x00007f0000010000 4K -
    continue {PAGE} 4K -
    poison 0x00007f0000001000 4K -
    wake 0x00007f0000001000 4K
    kernel_access 0x00007f0000010000 write
    populate 0x00007f0000010000 8K write
    access_many 0x00007f0000010000 8K write
    move {PAGE} 0x00007f0000010000 4K -
    writeprotect {PAGE} 64K wp
    mprotect {PAGE} 8K r--
    madvise {PAGE} 4K dontneed
    mlock {PAGE} 4K
    munlock {PAGE} 4K
    file_write 3 4K 0
    file_punch_hole 3 4K 0
    file_truncate 3 1
    unregister {PAGE} 64K
    mremap {PAGE} 64K 0x00007f0000030000 64K maymove|fixed
    access {PAGE} read 0
    mmap 0x00007f0000040000 64K r-- shared readonly 0
    mmap 0x00007f0000050000 64K rw- shared regular 0
    file_read 0 4K 1
    pagemap_scan 0x00007f0000010000 64K present - - - 0
    fork
    access 0x00007f0000010000 write 0 mm=1
    userfaultfd - - mm=1
    register 0x00007f0000010000 64K wp uffd=1
    exit mm=1
    munmap {PAGE} 64K
    close
    """
    found = Finding("against", "kind", "title", fuzz.from_text(text), NEW, "empty")
    source = c_program_of(found)
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0
    lines = [line.strip() for line in text.strip().splitlines()]
    steps = [line for line in lines for _ in range(1 + ("access_many" in line))]
    told = [line for line in done.stdout.splitlines() if not line.startswith((" ", "0x", "pro"))]
    for line, said in zip(steps, told, strict=True):
        assert said.startswith(line)


@pytest.mark.parametrize("judge", ["invariants", "kernels", "model"])
def test_no_c_program_for_bugs_of_ptwalk_itself(judge: str) -> None:
    program = fuzz.from_text(f"access {PAGE} write 0")
    for name, has_one in ((judge, False), ("running-kernel", True)):
        made = c_program_of(Finding(name, "kind", "title", program, NEW, SETUP))
        assert (made is not None) == has_one


# Each ends as the executor says, with what a userfaultfd is told of as SIGBUS.
SHOWN = (
    ("empty", f"mmap {PAGE} 256K rw- shared shmem 0\naccess 0x00007f0000030000 write 0"),
    ("empty", f"""
    mmap {PAGE} 64K rw- shared shmem 0
    mmap 0x00007f0000010000 64K rw- shared shmem 0
    file_truncate 0 0
    access_many 0x00007f0000010000 8K read
    access {PAGE} read 0
    """),
    ("empty", f"mmap {PAGE} 64K rw- - anon 0\nmmap {PAGE} 4K rw- fixed_noreplace anon 0"),
    ("anon-16", f"""
    munmap {PAGE} 4K odd=at
    munmap {PAGE} 4K odd=wrap
    mprotect {PAGE} 4K r-- odd=length
    mprotect {PAGE} 4K r-- odd=wrap
    access {PAGE} write 0 odd=at
    writeprotect {PAGE} 4K wp odd=wrap
    mremap {PAGE} 64K {PAGE} 4K - odd=wrap
    """),
    ("empty", f"kernel_access {PAGE} read\nkernel_access {PAGE} write\naccess {PAGE} read 0"),
    ("empty", f"""
    mmap {PAGE} 64K rw- - anon 0
    userfaultfd - -
    register {PAGE} 64K missing|wp
    copy {PAGE} 4K wp
    access_many {PAGE} 8K write
    wake {PAGE} 4K
    close
    wake {PAGE} 4K
    populate {PAGE} 64K write
    access {PAGE} write 0
    madvise {PAGE} 4K unknown
    """),
    (  # processes: copies on write, userfaultfds of their own
        "anon-16",
        f"""
    access_many {PAGE} 16K write_every_other
    writeprotect {PAGE} 64K wp
    fork
    access {PAGE} write 0 mm=1
    access {PAGE} write 0
    mmap 0x00007f0000010000 16K rw- shared shmem 0 mm=1
    fork mm=1
    userfaultfd - - mm=2
    register 0x00007f0000010000 16K wp uffd=1
    writeprotect 0x00007f0000010000 16K wp uffd=1
    access 0x00007f0000010000 write 0 mm=1
    access 0x00007f0000010000 write 0 mm=2
    exit
    file_truncate 0 0
    access 0x00007f0000010000 read 0
    exit mm=1
    access {PAGE} read 0
    """,
    ),
    (
        "shmem-16",
        "\n".join(
            f"writeprotect {PAGE} 8K wp\naccess_many {PAGE} 20K {pattern}"
            for pattern in (
                "read", "write", "read_write", "write_read", "read_backwards", "write_backwards",
                "write_every_other", "write_twice",
            )
        ),
    ),
    ("large", "access_many 0x00007f00001f0000 128K write\nwriteprotect 0x00007f0000000000 1G wp"),
    (
        "two-uffds",
        f"access {PAGE} write 0\nwriteprotect {PAGE} 64K wp\naccess {PAGE} write 0\nclose uffd=1",
    ),
    (
        "empty",
        f"""
    mmap {PAGE} 64K r-- shared readonly 0
    mmap 0x00007f0000010000 64K rw- shared regular 0
    mprotect {PAGE} 64K rw-
    access {PAGE} write 0
    file_read 1 16K 0
    access_many 0x00007f0000010000 64K write_read
    madvise {PAGE} 128K hugepage
    madvise {PAGE} 128K dontdump
    userfaultfd wp_unpopulated|poison move|as_they_are
    """,
    ),
)  # fmt: skip


def outcome(told: str) -> str:
    """Say in the C program's words what the executor told of one call or access."""
    if errors := [word for word in told.split("; ") if word.isupper()]:
        return os.strerror(getattr(errno, errors[0]))
    signals = {"blocked": "SIGBUS", "signal 7": "SIGBUS", "signal 11": "SIGSEGV"}
    return next((said for word, said in signals.items() if word in told), "done")


@COMPILES
@RUNS
@pytest.mark.parametrize(("setup", "text"), SHOWN)
def test_c_programs_end_as_the_executor_says(tmp_path: Path, setup: str, text: str) -> None:
    program = fuzz.from_text(text)
    printed = shown(tmp_path, setup, program)
    want: list[str] = []
    for step in fuzz.Executor(NEW, "empty").steps(fuzz.SETUPS[setup] + program):
        name, told = step.text.split()[0], step.visible
        if name == "kernel_access" and "signal" in told:
            told = "EFAULT"
        want += map(outcome, told.split("; ") if name == "access_many" else [told])
    assert what_it_said(printed) == want


def what_it_said(told: str) -> list[str]:
    """Return how the steps of a C program ended."""
    rest = " ", "0x", "process "
    return [line[64:].strip() for line in told.splitlines() if not line.startswith(rest)]


@COMPILES
@RUNS
def test_accesses_wait_where_messages_are_read(tmp_path: Path) -> None:
    """A message is read while its access waits; a wake lets it go on, or report again."""
    program = fuzz.from_text(f"""
    mmap {PAGE} 64K rw- shared shmem 0
    userfaultfd - user_mode_only
    register {PAGE} 64K missing
    access {PAGE} write 0
    access 0x00007f0000001000 read 0
    kernel_access 0x00007f0000002000 write
    read
    wake {PAGE} 4K
    read
    copy {PAGE} 4K -
    close
    read
    """)
    printed = shown(tmp_path, "empty", program)
    lines = [line for line in printed.splitlines()[3:] if not line.startswith("0x")]
    assert [line if line.startswith(" ") else line[64:].strip() for line in lines] == [
        "waits",
        "waits",
        "Bad address",
        "done",
        "  pagefault WRITE 0x100000000000",
        "  pagefault 0x100000001000",
        "done",
        "done",
        "  pagefault WRITE 0x100000000000",
        "done",
        f"  {f'access {PAGE} write 0':62} done",
        "done",
        f"  {'access 0x00007f0000001000 read 0':62} done",
        "Bad file descriptor",
    ]


@COMPILES
@RUNS
def test_calls_wait_until_their_events_are_read(tmp_path: Path) -> None:
    program = fuzz.from_text(f"""
    mmap {PAGE} 64K rw- shared shmem 0
    mmap 0x00007f0000010000 64K rw- - anon 0
    userfaultfd event_fork|event_remap|event_remove|event_unmap user_mode_only
    register {PAGE} 128K missing|wp
    munmap 0x00007f000000f000 8K
    copy {PAGE} 4K -
    read
    copy {PAGE} 4K -
    mremap {PAGE} 16K 0x00007f0000040000 16K maymove|fixed
    read
    madvise 0x00007f0000040000 16K dontneed
    read
    access 0x00007f0000042000 write 0
    read
    """)
    printed = shown(tmp_path, "empty", program)
    told = [step.visible for step in fuzz.Executor(NEW, "empty").steps(program)]
    messages = [part for step in told for part in step.split("; ")[:2] if part[:1] in "ru"]
    lines = [line for line in printed.splitlines() if not line.startswith("0x")]
    waits = [line.split()[0] for line in lines if line.endswith(" waits")]
    assert waits == ["munmap", "mremap", "madvise", "access"]
    said = [line.strip().replace("0x10", "0x7f") for line in lines if line.startswith("  ")]
    assert [line for line in said if not line.endswith("done")] == [
        part for part in messages if part
    ] + ["pagefault WRITE 0x7f0000042000"]
    assert [line[64:].strip() for line in lines if line.startswith("copy")] == [
        os.strerror(errno.EAGAIN),
        "done",
    ]


@COMPILES
@RUNS
def test_a_c_program_finds_what_a_scan_finds(tmp_path: Path) -> None:
    text = f"access_many {PAGE} 16K write_every_other\npagemap_scan {PAGE} 64K present - - - 0"
    program = fuzz.from_text(text)
    printed = shown(tmp_path, "anon-16", program)
    told = fuzz.Executor(NEW, "anon-16").steps(program)[-1].visible.replace("0x7f", "0x10")
    starts, ends, kinds = (
        [word.partition("=")[2] for word in told.split("; ") if word.startswith(name)]
        for name in ("start", "end", "categories")
    )
    found = [f"  {a}-{b} categories {c}" for a, b, c in zip(starts, ends, kinds, strict=True)]
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    assert lines == [*found, f"  to {told.rpartition('=')[2]}"]
    assert len(found) == 2


@COMPILES
@RUNS
def test_a_c_program_ends_where_a_call_does_not(tmp_path: Path) -> None:
    program = fuzz.from_text(f"madvise {PAGE} 4K guard_install")
    assert fuzz.Executor(NEW, "stale-16").steps(program)[0].visible == "EINTR"
    printed = shown(tmp_path, "stale-16", program)
    assert printed.splitlines()[-1] == "the next call does not end"


@COMPILES
@RUNS
def test_a_c_program_shows_what_the_running_kernel_does(tmp_path: Path) -> None:
    printed = shown(tmp_path, SETUP, fuzz.from_text(HZ1))
    lines = printed.splitlines()
    # The setup's three calls and the program's five; the last write is not lost on 6.18.
    assert [line[64:].strip() for line in lines[:8]] == ["done"] * 7 + ["SIGBUS"]
    assert lines[8] == "0x0000100000000000 present file uffd-wp exclusive"
