"""``ptwalk fuzz``: what it prints, its exit status, its files, and resuming after kill -9."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import ptwalk
import pytest
from ptwalk import cli, cli_fuzz, fuzz
from ptwalk.fuzz import mutants
from ptwalk.fuzz.campaign import State
from ptwalk.fuzz.progress import progress

Capture = pytest.CaptureFixture[str]
AGAINST = ["fuzz", "--profile", "uffd-wp-v2", "--against", "6.18", "--setup", "shmem-16"]
HZ1 = """
access       0x00007f0000000000 write 0
writeprotect 0x00007f0000000000 4K wp
mprotect     0x00007f0000000000 64K r--
mprotect     0x00007f0000000000 64K rw-
access       0x00007f0000000000 write 0
"""
HYBRID = "uffd-wp-v2 with populate of 6.18"
QUICK = ["--judge", "against", "--workers", "1"]


def test_nothing_is_found_in_a_profile(capsys: Capture) -> None:
    command = ["fuzz", "--profile", "6.18", "--setup", "shmem-16", "--tasks", "2"]
    assert cli.main([*command, "--workers", "1"]) == 0
    captured = capsys.readouterr()
    first, last = captured.out.splitlines()
    assert re.fullmatch(
        r" *\d+ s  2 tasks  4096 programs  \d+/s  corpus \d+  branches \d+/\d+  findings 0", first
    )
    assert last == "nothing found"
    assert "tasks" in captured.err  # plain lines, as it is no terminal


def test_v2_against_6_18_finds_and_explains_the_absent_pud_and_hz1(
    capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main([*AGAINST, *QUICK, "--tasks", "8", "--corpus", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    pud = "lost write: wr-protect does not populate above the PMD"
    lines = out.splitlines()
    after = "(2 operations after the setup shmem-16, found after "
    assert re.match(rf"1  {re.escape(pud)} +{re.escape(after)}[\d.]+ s\)", lines[0])
    protect = re.fullmatch(r" *writeprotect (0x00007f00000\d\d000) 4K wp", lines[1])
    assert protect
    store = re.fullmatch(rf" *(\w*access\w*) {protect[1]} (4K )?write.*", lines[2])
    assert store
    assert re.match(rf" +uffd-wp-v2  writeprotect: none_skipped=0x1   {store[1]}: .*done", lines[3])
    assert re.match(rf" +6.18        writeprotect: pages=0x1; .*   {store[1]}: .*blocked", lines[4])
    setup = fuzz.to_text(fuzz.SETUPS["shmem-16"]).splitlines()
    assert [line.strip() for line in lines[-6:-2]] == ["setup shmem-16", *setup]
    assert lines[-1].endswith(f"findings in {tmp_path}/findings, each with a Python script")

    found = {}
    for path in sorted((tmp_path / "findings").iterdir()):
        document = json.loads((path / "finding.json").read_text())
        found[document["title"]] = document
        comments = (path / "program.txt").read_text().splitlines()[1:5]
        assert comments == ["# after the setup shmem-16:", *(f"#   {line}" for line in setup)]
        assert {"program.bin", "program.txt", "show.py"} <= {file.name for file in path.iterdir()}
    assert found[pud]["rules"] == ["populate"]
    hz1 = "lost write: mprotect gives RW back to an armed shared page (HZ1)"
    assert found[hz1]["rules"] == ["writenotify_uffd_wp"]
    assert found[hz1]["operation"] == "mprotect"

    assert cli.main(["fuzz", "--report", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    branches = fuzz.Executor("6.18", "shmem-16").branches
    for profile in ("uffd-wp-v2", "6.18"):
        reached = re.search(rf"^{profile}: (\d+) of {len(branches)} branches", report, re.M)
        assert reached
        missing = report.partition(f"{profile}: nothing reaches\n")[2].splitlines()
        names = [line.strip() for line in missing if line.strip() in branches]
        assert len(set(names)) >= len(branches) - int(reached[1])
    assert re.search(r"^ +\d+ of +\d+  operation/access$", report, re.M)
    assert re.search(r"^ +\d+ of +\d+  change_pte_range$", report, re.M)

    assert cli.main(["fuzz", "--report", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    one, other = document["sides"]
    assert (one["profile"], other["profile"]) == ("uffd-wp-v2", "6.18")
    assert list(one["branches"]) == list(branches)
    told = re.search(r"corpus (\d+)  branches (\d+)/", out)
    assert told
    assert document["programs"] == int(told[1]) == len(list((tmp_path / "corpus").iterdir()))
    assert f"corpus of {told[1]} programs\n" in report
    reached_by = [number for side in (one, other) for number in side["branches"].values()]
    assert sum(number > 0 for number in reached_by) >= int(told[2])


def test_json_is_one_document(capsys: Capture) -> None:
    assert cli.main([*AGAINST, *QUICK, "--tasks", "1", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["campaign"]["profile"] == "uffd-wp-v2"
    assert document["tasks"] == 1
    assert document["counts"]["programs"] == 2048
    for finding in document["findings"]:
        assert fuzz.from_text("\n".join(finding["text"]))
        assert finding["key"].startswith("against|")


def test_the_first_finding_ends_it(capsys: Capture) -> None:
    assert cli.main([*AGAINST, *QUICK, "--tasks", "500", "--first", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["tasks"] < 10


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--profile", "6.66"], "profile '6.66' is not known"),
        (["--against", "6.18", "--profile", "6.18"], "have the same rules"),
        (["--setup", "nothing"], "setup 'nothing' is not known"),
        (["--judge", "god"], "judge 'god' is not one; use invariants, kernels"),
        (["--judge", "against"], "against with --against"),
        (["--mutant", "off_by_one"], "mutant 'off_by_one' is not known"),
        (["--tasks", "0"], "--tasks 0 is not positive"),
        (
            ["--seconds", "-1"],
            "--seconds -1 is not positive and finite; give one that is, or leave",
        ),
        (["--seconds", "nan"], "--seconds nan is not positive and finite"),
        (["--seconds", "inf"], "--seconds inf is not positive and finite"),
        (["--seed", "-1"], "--seed -1 is negative; give 0 or more"),
        (["--corpus", __file__, "--tasks", "1"], f"{__file__}: File exists; give a directory"),
        (["--corpus", "/proc/nope", "--tasks", "1"], "/proc/nope: No such file or directory; give"),
        (["--seeds", "/nonexistent", "--tasks", "1"], "/nonexistent is no directory; give one"),
        (["--judge", "model", "--profile", HYBRID], f"the model has no '{HYBRID}', only 5.12"),
        (["--workers", "-1"], "--workers -1 is not positive"),
        (["--report", "/nonexistent"], "holds no campaign"),
        (["--judge", "running-kernel", "--profile", "6.1"], "cannot be asked"),
    ],
)
def test_errors_are_one_line_and_status_2(arguments: list[str], text: str, capsys: Capture) -> None:
    assert cli.main(["fuzz", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_seeds_of_another_fuzzer_are_run_and_kept(capsys: Capture, tmp_path: Path) -> None:
    seeds, corpus = tmp_path / "seeds", tmp_path / "corpus"
    seeds.mkdir()
    for i, text in enumerate((HZ1, "fork\n" * 40)):
        (seeds / str(i)).write_bytes(fuzz.from_text(text))
    run = [*AGAINST, *QUICK, "--tasks", "1", "--corpus", str(corpus)]
    assert cli.main([*run, "--seeds", str(seeds), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["programs"] == 2048 + 1  # the other task of a setup has the other
    assert any(finding["rules"] == ["writenotify_uffd_wp"] for finding in document["findings"])
    assert cli.main(run) == 2
    assert "holds a campaign with seeds" in capsys.readouterr().err


def test_the_number_of_workers_changes_nothing(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = []
    for workers in (2, 40):

        @contextmanager
        def threads(_args: object, workers: int = workers) -> Iterator[tuple[Executor, int]]:
            with ThreadPoolExecutor(1) as pool:
                yield pool, workers

        monkeypatch.setattr(cli_fuzz, "_pool", threads)
        run = ["--setup", "shmem-16", "--judge", "invariants", "--tasks", "40", "--json"]
        assert cli.main(["fuzz", *run]) == 0
        documents.append({**json.loads(capsys.readouterr().out), "seconds": 0})
    assert documents[0] == documents[1]


@pytest.mark.parametrize("text", ["", "{}", '{"profile": "6.1'])
def test_a_damaged_campaign_is_one_line(text: str, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "campaign.json").write_text(text)
    for arguments in (["--corpus", str(tmp_path), "--tasks", "1"], ["--report", str(tmp_path)]):
        assert cli.main(["fuzz", "--setup", "shmem-16", *arguments]) == 2
        said = f"ptwalk: {tmp_path}/campaign.json describes no campaign; put it back from a copy"
        assert capsys.readouterr().err.startswith(said)
    (tmp_path / "campaign.json").unlink()
    (tmp_path / "journal").unlink()
    (tmp_path / "journal").mkdir()
    assert cli.main(["fuzz", "--corpus", str(tmp_path), "--tasks", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"ptwalk: {tmp_path}/journal: Is a directory; give")


def test_a_hybrid_runs_without_the_model(capsys: Capture) -> None:
    run = ["--setup", "shmem-16", "--tasks", "1", "--workers", "1", "--json"]
    assert cli.main(["fuzz", "--profile", HYBRID, *run]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        f"ptwalk: judge 'model' is left out: the model has no '{HYBRID}'"
    )
    assert json.loads(captured.out)["campaign"]["judges"] == ["invariants", "kernels"]


def test_ctrl_c_twice_tells_what_was_found(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(ptwalk.__file__).parents[1])}
    process = subprocess.Popen(
        command(tmp_path, "--tasks", "100000"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for_progress(tmp_path / "journal", process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)  # the workers too, as a terminal does
        time.sleep(0.02)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(rb"\n\d+ findings in ", out)
    assert b"Traceback" not in said
    assert said.endswith(b"ptwalk: interrupted\n")


def command(directory: Path, *more: str) -> list[str]:
    tasks = ["--tasks", "40", "--workers", "2", "--judge", "against", "--corpus", str(directory)]
    return [sys.executable, "-m", "ptwalk", *AGAINST, *tasks, *more]


def results(directory: Path) -> dict[str, bytes]:
    """Every file but the journal, which holds times."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "journal"
    }


def test_killed_again_and_again_it_ends_as_one_left_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(ptwalk.__file__).parents[1])}
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    subprocess.run(command(alone), env=environment, check=False, capture_output=True)
    rng = random.Random(7)
    for _ in range(10):
        process = subprocess.Popen(
            command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for_progress(killed / "journal", process)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed ten times"
    done = subprocess.run(command(killed), env=environment, check=False, capture_output=True)
    assert done.returncode == 1, done.stderr.decode()
    assert results(killed) == results(alone)


def wait_for_progress(journal: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a task more is recorded, so that ten kills are not ten starts."""
    before = journal.stat().st_size if journal.exists() else 0
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size > before:
            return
        time.sleep(0.005)


class Terminal:
    """Stands for a terminal that remembers what was written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_line_that_changes() -> None:
    pytest.importorskip("rich", reason="rich is not installed")
    terminal = Terminal()
    with progress(100, terminal) as tell:  # type: ignore[arg-type]
        tell(State(3, 2.0, {"programs": 10}, 5, 40, 1))
        time.sleep(0.3)  # rich draws it when it is time
    assert "branches 40/100" in terminal.text


def test_a_build_without_mutants_says_so(capsys: Capture) -> None:
    if cli_fuzz.mutants():
        pytest.skip("this build has mutants")
    assert mutants.main([]) == 2
    assert "this build has none" in capsys.readouterr().err


def test_mutants_are_told_in_a_table() -> None:
    document = {
        "findings": [
            {"seconds": 9.0, "judge": "model", "title": "late"},
            {"seconds": 0.5, "judge": "kernels", "title": "early"},
        ]
    }
    found = mutants.detection("lane_wrong", document, unit_tests=True)
    missed = mutants.detection("no_flush", {"findings": []}, unit_tests=False)
    assert mutants.table([found, missed]).splitlines()[2:] == [
        "| `lane_wrong` | 0.5 s | kernels | early | fail |",
        "| `no_flush` | not found |  |  | pass |",
        "",
        "1 of 2 found.",
    ]
