"""Scripts of findings need the public API only, run, and show what was found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ptwalk
import pytest
from ptwalk import _core, fuzz
from ptwalk.fuzz.against import Against
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
    path.write_bytes(files["program.bin"].replace(b"\0\2", b"\0\1", 1))
    assert read_program(path) == program  # of version 1
    for wrong, text in (
        (program, "holds no program"),
        (files["program.bin"][:14], "holds no program"),
        (
            files["program.bin"].replace(b"\0\2", b"\0\7", 1),
            "format version 7; this ptwalk",
        ),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ptwalk.InvalidArgument, match=text):
            read_program(path)
