"""The command line: what each command prints, its exit status, and how errors are said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ptwalk
import pytest
from paths import trace_files
from ptwalk import cli

Capture = pytest.CaptureFixture[str]


def test_explain_prints_the_line_of_the_usage_script(capsys: Capture) -> None:
    assert cli.main(["explain", "0x8400000012345425", "--profile", "6.18"]) == 0
    assert capsys.readouterr().out == (
        "0x8400000012345425 present: pfn 0x12345, P US A UFFD_WP SAVED_DIRTY NX "
        "(read-only, dirty, wr-protected)\n"
    )


def test_explain_at_another_level(capsys: Capture) -> None:
    assert cli.main(["explain", "0x67", "--profile", "6.18", "--level", "pmd"]) == 0
    assert capsys.readouterr().out == "0x0000000000000067 table: pfn 0x0, P RW US A D\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["explain", "zz", "--profile", "6.18"], "WORD 'zz' is not a number"),
        (["explain", "0x4", "--profile", "6.66"], "6.66"),
        (["explain", "-1", "--profile", "6.18"], "outside 64 bits"),
        (["explain", "1", "--profile", "6.18", "--level", "page"], "'page' is not a paging level"),
        (["read", "nobody"], "PID 'nobody' is not a number"),
        (["read", "0"], "pid 0"),
        (["read", "4194305"], "ESRCH"),  # above PID_MAX_LIMIT
    ],
)
def test_errors_are_one_line_and_status_2(arguments: list[str], text: str, capsys: Capture) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ptwalk: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["explain", "4"], ["replay"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: ptwalk" in capsys.readouterr().err


def test_profiles(capsys: Capture) -> None:
    assert cli.main(["profiles"]) == 0
    assert capsys.readouterr().out == (
        "5.12  uffd-wp-v2-11  uffd-wp-v2 (default)  6.1  6.12  6.18\n"
    )


def test_read_self_counts_every_page_of_every_vma(capsys: Capture) -> None:
    assert cli.main(["read", "self"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"live: pid {os.getpid()}, ")
    vmas = [line for line in lines if re.match(r"0x[0-9a-f]{16}-0x", line)]
    assert len(vmas) > 10
    for line in vmas:
        start, end = (int(text, 16) for text in re.findall(r"0x[0-9a-f]{16}", line)[:2])
        counts = [int(text) for text in re.findall(r"'\w+': (\d+)", line)]
        assert sum(counts) == (end - start) // 4096, line
    assert re.fullmatch(r"\d+% of the present entries are writable", last)


def test_replay_of_a_trace(capsys: Capture) -> None:
    path = trace_files(kernel="6.18", family="anon")[0]
    assert cli.main(["replay", str(path)]) == 0
    assert re.search(r"6\.18 +anon .*0 differ", capsys.readouterr().out)


def test_doctor_says_what_works(capsys: Capture) -> None:
    assert cli.main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["ptwalk"] == ptwalk.__version__
    assert re.match("works|no: ", lines["userfaultfd"])
    assert re.match("works|no: ", lines["pagemap"])


def test_python_m_ptwalk_is_the_command() -> None:
    command = [sys.executable, "-m", "ptwalk", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"ptwalk {ptwalk.__version__}\n"


def test_a_reader_that_stops_early_is_no_error() -> None:
    source = str(Path(ptwalk.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "ptwalk", "profiles"]
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (2, "")
