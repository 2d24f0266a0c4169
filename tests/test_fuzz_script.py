"""Scripts of findings need the public API only, run, and show what was found."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ptwalk
import pytest
from ptwalk import _core, fuzz
from ptwalk.fuzz.against import Against
from ptwalk.fuzz.c_program import c_program_of
from ptwalk.fuzz.findings import Finding
from ptwalk.fuzz.report import files_of, read_program
from ptwalk.fuzz.running import reason
from ptwalk.fuzz.script import script_of

PAGE = "0x00007f0000000000"
V2, NEW, SETUP = "uffd-wp-v2", "6.18", "shmem-16"
HZ1 = f"""
access {PAGE} write 0
writeprotect {PAGE} 4K wp
mprotect {PAGE} 64K r--
mprotect {PAGE} 64K rw-
access {PAGE} write 0
"""
EVERYTHING = f"""
mmap {PAGE} 64K rw- shared shmem 0
mmap 0x00007f0000010000 64K rw- shared anon 0
userfaultfd wp_unpopulated -
register {PAGE} 64K wp
access_many {PAGE} 16K write_twice
fork
mprotect {PAGE} 8K r-- mm=1
migrate_start {PAGE} 8K
migrate_finish 1
migrate_finish 0
numa {PAGE} 64K
file_write 3 4K 0
read
madvise {PAGE} 4K unknown
munmap {PAGE} 64K mm=1
exit mm=1
"""


def finding(text: str, setup: str = SETUP) -> Finding:
    against = Against(lambda name: fuzz.Executor(name, setup, raw=False), V2, NEW, setup)
    found = against(fuzz.from_text(text))
    assert found is not None
    return found


def run(path: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(ptwalk.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-W", "error", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_script_shows_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "show.py"
    path.write_bytes(script_of(finding(HZ1)))
    done = run(path)
    assert done.returncode == 0, done.stderr
    one, two = done.stdout.split("\n6.18\n")
    assert one.startswith("uffd-wp-v2\n")
    assert "AccessResult(done)" in [line for line in one.splitlines() if "access" in line][-1]
    assert "AccessResult(blocked, UffdMsg(pagefault WRITE|WP" in two
    assert "P RW US A D UFFD_WP" in one  # armed and writable
    assert "P RW US A D UFFD_WP" not in two


def test_a_script_prints_what_the_executor_says(tmp_path: Path) -> None:
    """Step by step the same outcome, for a program with every kind of statement."""
    program = fuzz.from_text(EVERYTHING)
    for profile in ptwalk.profiles():
        found = Finding("invariants", "kind", "title", program, profile, "empty")
        path = tmp_path / f"{profile}.py"
        path.write_bytes(script_of(found))
        source = path.read_text()
        assert "_core" not in source
        assert "fuzz.Executor" not in source
        done = run(path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()[1:]
        steps = fuzz.Executor(profile, "empty").steps(program)
        for line, step in zip(lines, steps, strict=False):
            assert step.text in line
            errors = [word for word in step.visible.split("; ") if word.isupper()]
            assert all(error in line for error in errors), (line, step)
            assert ("Errno" in line) == bool(errors), (line, step)


def test_what_has_no_statement_runs_on_the_executor(tmp_path: Path) -> None:
    program = fuzz.from_text(f"set_pte {PAGE} armed_rw -\naccess {PAGE} write 0")
    path = tmp_path / "show.py"
    path.write_bytes(script_of(Finding("kernels", "kind", "title", program, NEW, SETUP)))
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert f"set_pte {PAGE} armed_rw -" in done.stdout
    assert "done; 0x8000000012345467 to" in done.stdout


@pytest.mark.parametrize("judge", ["invariants", "kernels", "model", "running-kernel"])
def test_the_judge_says_it_again(tmp_path: Path, judge: str) -> None:
    program = fuzz.from_text(f"access {PAGE} write 0\nmprotect {PAGE} 4K r--")
    path = tmp_path / "show.py"
    path.write_bytes(script_of(Finding(judge, "kind", "title", program, NEW, SETUP)))
    done = run(path)
    assert done.returncode == 0, done.stderr
    skipped = reason() if judge == "running-kernel" else None
    assert done.stdout.splitlines()[-1] == f"judge {judge}: {skipped or 'nothing'}"


def test_a_planted_bug_is_named_and_needs_its_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "active_mutant", lambda: "a_bug")
    program = fuzz.from_text(f"access {PAGE} write 0")
    path = tmp_path / "show.py"
    path.write_bytes(script_of(Finding("model", "kind", "title", program, NEW, SETUP)))
    assert "6.18 with the planted bug a_bug" in path.read_text()
    assert path.read_text().index("environ[\"PTWALK_MUTANT\"] = 'a_bug'") < path.read_text().index(
        "import ptwalk"
    )
    done = run(path)
    assert done.returncode == 1
    assert done.stderr.startswith("this build of ptwalk has no planted bug a_bug; `python3 dev.py")


def test_the_files_of_a_finding(tmp_path: Path) -> None:
    files = files_of(finding(HZ1))
    assert set(files) == {"program.bin", "program.txt", "show.py", "show.c"}
    path = tmp_path / "program.bin"
    path.write_bytes(files["program.bin"])
    program = read_program(path)
    assert program == fuzz.from_text(HZ1) == fuzz.from_text(files["program.txt"].decode())
    for wrong, text in (
        (program, "holds no program"),
        (files["program.bin"][:14], "holds no program"),
        (
            files["program.bin"].replace(b"\0\1", b"\0\7", 1),
            "format version 7; this ptwalk",
        ),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ptwalk.InvalidArgument, match=text):
            read_program(path)


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
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
    *(
        ("shmem-16", f"writeprotect {PAGE} 8K wp\naccess_many {PAGE} 20K {pattern}")
        for pattern in (
            "read", "write", "read_write", "write_read", "read_backwards", "write_backwards",
            "write_every_other", "write_twice",
        )
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
    """,
    ),
)  # fmt: skip


def outcome(told: str) -> str:
    """Say in the C program's words what the executor told of one call or access."""
    if errors := [word for word in told.split("; ") if word.isupper()]:
        return os.strerror(getattr(errno, errors[0]))
    signals = {"blocked": "SIGBUS", "signal 7": "SIGBUS", "signal 11": "SIGSEGV"}
    return next((said for word, said in signals.items() if word in told), "done")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
@pytest.mark.parametrize(("setup", "text"), SHOWN)
def test_c_programs_end_as_the_executor_says(tmp_path: Path, setup: str, text: str) -> None:
    program = fuzz.from_text(text)
    source = c_program_of(Finding("against", "kind", "title", program, NEW, setup))
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True)
    want: list[str] = []
    for step in fuzz.Executor(NEW, "empty").steps(fuzz.SETUPS[setup] + program):
        name, told = step.text.split()[0], step.visible
        if name == "kernel_access" and "signal" in told:
            told = "EFAULT"
        want += map(outcome, told.split("; ") if name == "access_many" else [told])
    assert what_it_said(done.stdout) == want


def what_it_said(told: str) -> list[str]:
    """Return how the steps of a C program ended."""
    rest = " ", "0x", "process "
    return [line[64:].strip() for line in told.splitlines() if not line.startswith(rest)]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
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
    source = c_program_of(Finding("against", "kind", "title", program, NEW, "empty"))
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines()[3:] if not line.startswith("0x")]
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
        f"  {'the access of 0x100000000000 that waited':62} done",
        "done",
        f"  {'the access of 0x100000001000 that waited':62} done",
        "Bad file descriptor",
    ]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
def test_a_c_program_finds_what_a_scan_finds(tmp_path: Path) -> None:
    text = f"access_many {PAGE} 16K write_every_other\npagemap_scan {PAGE} 64K present - - - 0"
    program = fuzz.from_text(text)
    source = c_program_of(Finding("against", "kind", "title", program, NEW, "anon-16"))
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True)
    told = fuzz.Executor(NEW, "anon-16").steps(program)[-1].visible.replace("0x7f", "0x10")
    starts, ends, kinds = (
        [word.partition("=")[2] for word in told.split("; ") if word.startswith(name)]
        for name in ("start", "end", "categories")
    )
    found = [f"  {a}-{b} categories {c}" for a, b, c in zip(starts, ends, kinds, strict=True)]
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert lines == [*found, f"  to {told.rpartition('=')[2]}"]
    assert len(found) == 2


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
def test_a_c_program_ends_where_a_call_does_not(tmp_path: Path) -> None:
    program = fuzz.from_text(f"madvise {PAGE} 4K guard_install")
    assert fuzz.Executor(NEW, "stale-16").steps(program)[0].visible == "EINTR"
    source = c_program_of(Finding("against", "kind", "title", program, NEW, "stale-16"))
    assert source is not None
    done = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "the next call does not end"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
@pytest.mark.skipif(reason() is not None, reason=str(reason()))
def test_a_c_program_shows_what_the_running_kernel_does(tmp_path: Path) -> None:
    source = c_program_of(finding(HZ1))
    assert source is not None
    program = compiled(tmp_path, source)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    # The setup's three calls and the program's five; the last write is not lost on 6.18.
    assert [line[64:].strip() for line in lines[:8]] == ["done"] * 7 + ["SIGBUS"]
    assert lines[8] == "0x0000100000000000 present file uffd-wp exclusive"
