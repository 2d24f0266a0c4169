"""What a campaign finds follows from its tasks: not from workers, order, kills or a resume.

The work is made up here, a function of what a task is told, so that any slip in who knows what
changes the end. The real work is in test_fuzz_command.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ptwalk.errors import InvalidArgument, PtwalkError
from ptwalk.fuzz.campaign import Campaign, Spec, State
from ptwalk.fuzz.corpus import Entry
from ptwalk.fuzz.findings import Finding
from ptwalk.fuzz.task import Before, TaskResult

FEATURES = 4096
SPEC = Spec("6.18", ("shmem-16",), seed=3, generation=8)


def work(spec: Spec, task: int, before: Before) -> TaskResult:
    """Answer by a hash of all that the task is told; slow at random."""
    told = repr((spec.seed, task, before.programs, before.seen, sorted(before.known)))
    digest = sha256(told.encode()).digest()
    time.sleep(random.random() * 0.004)
    entries = tuple(
        Entry(digest[i : i + 8], (digest[i] * 16 + digest[i + 1] % 16,)) for i in range(0, 24, 8)
    )
    kind = f"kind {digest[24] % 40}"
    finding = Finding("judge", kind, f"title of {kind}", digest, spec.profile, spec.setup(task))
    findings = () if finding.key in before.known else (finding,)
    return TaskResult(task, entries, findings, {"programs": 10, f"seen {digest[25] % 3}": 1})


def files(finding: Finding) -> dict[str, bytes]:
    return {"program.txt": finding.program.hex().encode()}


def campaign(directory: Path | None, spec: Spec = SPEC) -> Campaign:
    return Campaign(spec, work, FEATURES, directory=directory, files=files)


def run(directory: Path | None, tasks: int, workers: int, spec: Spec = SPEC) -> Campaign:
    made = campaign(directory, spec)
    with ThreadPoolExecutor(workers) as pool:
        made.run(pool, workers=workers, tasks=tasks)
    made.finish()
    return made


def end(made: Campaign) -> object:
    """Everything but the time."""
    found = {key: (f.finding, f.task) for key, f in made.findings.items()}
    return found, made.corpus.entries, made.corpus.seen.tolist(), made.counts


def on_disk(directory: Path) -> dict[str, bytes]:
    paths = [p for name in ("corpus", "findings") for p in (directory / name).rglob("*")]
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths if p.is_file()}


def test_workers_and_order_change_nothing(tmp_path: Path) -> None:
    alone = run(None, 150, 1)
    assert len(alone.findings) > 10
    assert end(alone) == end(run(None, 150, 7))
    assert end(alone) == end(run(tmp_path, 150, 2))
    assert end(alone) != end(run(None, 151, 2))
    assert end(alone) != end(run(None, 150, 2, replace(SPEC, seed=4)))


def test_a_task_knows_all_tasks_up_to_its_basis() -> None:
    assert [SPEC.basis(task) for task in range(34)] == [
        *[0, 0, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4],
        *[8] * 8, *[16] * 8, *[24] * 2,
    ]  # fmt: skip
    told: dict[int, Before] = {}

    def listening(spec: Spec, task: int, before: Before) -> TaskResult:
        told[task] = before
        return work(spec, task, before)

    made = Campaign(SPEC, listening, FEATURES)
    with ThreadPoolExecutor(4) as pool:
        made.run(pool, workers=4, tasks=40)
    for task, before in told.items():
        first = run(None, SPEC.basis(task), 1)
        assert before.known == set(first.findings)
        assert set(before.programs) <= {entry.program for entry in first.corpus.entries}
        assert bool(before.programs) == bool(first.corpus.entries)


def test_resuming_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for tasks in (1, 5, 33, 33, 100, 20):
        made = run(tmp_path, tasks, 3)
    assert made.state().tasks == 100
    whole = run(None, 100, 1)
    assert end(made) == end(whole)
    expected = {f"findings/{f.finding.slug}/program.txt" for f in whole.findings.values()}
    expected |= {f"findings/{f.finding.slug}/finding.json" for f in whole.findings.values()}
    found = on_disk(tmp_path)
    assert {name for name in found if name.startswith("findings")} == expected
    kept = [data for name, data in found.items() if name.startswith("corpus")]
    assert sorted(kept) == sorted(entry.program for entry in whole.corpus.entries)


def test_results_that_came_early_are_kept_and_used_in_their_turn(tmp_path: Path) -> None:
    """A task that is lost while later ones are done is done again, they are not."""

    def losing(spec: Spec, task: int, before: Before) -> TaskResult:
        if task == 20:
            while '"task":22' not in (tmp_path / "journal").read_text():
                time.sleep(0.001)
            raise KeyboardInterrupt
        return work(spec, task, before)

    made = Campaign(SPEC, losing, FEATURES, directory=tmp_path, files=files)
    with ThreadPoolExecutor(4) as pool, pytest.raises(KeyboardInterrupt):
        made.run(pool, workers=4, tasks=60)
    made.finish()
    tasks = [
        json.loads(line.split(" ", 1)[1])["task"]
        for line in (tmp_path / "journal").read_text().splitlines()
    ]
    assert 20 not in tasks
    assert max(tasks) > 20
    resumed = run(tmp_path, 60, 2)
    assert end(resumed) == end(run(None, 60, 1))
    again = campaign(tmp_path)
    again.finish()
    assert end(again) == end(resumed)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, profile="6.12"),
        replace(SPEC, setups=("anon-16",)),
        replace(SPEC, generation=64),
    ],
)
def test_another_campaign_is_not_resumed(tmp_path: Path, other: Spec) -> None:
    run(tmp_path, 3, 1)
    with pytest.raises(
        InvalidArgument, match=r"a campaign with (profile|setups|generation) ('6|\['shm|8)"
    ):
        campaign(tmp_path, other)
    assert run(tmp_path, 4, 1).state().tasks == 4  # and the lock was given back


def test_nothing_is_touched_where_another_campaign_or_none_is(tmp_path: Path) -> None:
    run(tmp_path, 3, 1)
    unfinished, torn = tmp_path / ".a.17.tmp", tmp_path / "journal"
    unfinished.write_bytes(b"")
    torn.write_bytes(torn.read_bytes()[:-1])
    before = torn.read_bytes()
    with pytest.raises(InvalidArgument, match="holds a campaign with profile"):
        campaign(tmp_path, replace(SPEC, profile="6.12"))
    kept = (tmp_path / "campaign.json").rename(tmp_path / "kept")
    with pytest.raises(InvalidArgument, match=r"a journal without campaign\.json; put that back"):
        campaign(tmp_path)
    for text in ("", "{}", "[]", kept.read_text()[:-9]):
        (tmp_path / "campaign.json").write_text(text)
        with pytest.raises(InvalidArgument, match="describes no campaign; put it back"):
            campaign(tmp_path)
    assert unfinished.exists()
    assert torn.read_bytes() == before
    kept.replace(tmp_path / "campaign.json")
    campaign(tmp_path).finish()
    assert not unfinished.exists()


def test_another_format_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path, 3, 1)
    with pytest.raises(InvalidArgument, match="holds a campaign with features 4096, not 8"):
        Campaign(SPEC, work, 8, directory=tmp_path)


def test_a_pool_that_refuses_tasks_is_one_line_and_nothing_done_is_lost(tmp_path: Path) -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if args[1] == 3:
                raise BrokenExecutor
            return super().submit(fn, *args, **kwargs)

    made = campaign(tmp_path)
    with Broken(1) as pool, pytest.raises(PtwalkError, match=r"died in one of the tasks .*3"):
        made.run(pool, workers=1, tasks=9)
    made.finish()
    assert end(run(tmp_path, 9, 1)) == end(run(None, 9, 1))


@pytest.mark.parametrize("setups", [("a",), ("a", "b", "c"), tuple("abcdefghijk")])
def test_every_seed_runs_once_from_every_setup(tmp_path: Path, setups: tuple[str, ...]) -> None:
    seeds = [bytes([i]) for i in range(50)]
    told: list[tuple[str, bytes]] = []

    def listening(spec: Spec, task: int, before: Before) -> TaskResult:
        told.extend((spec.setup(task), seed) for seed in before.seeds)
        return work(spec, task, before)

    spec = replace(SPEC, setups=setups)
    made = Campaign(spec, listening, FEATURES, directory=tmp_path, seeds=seeds)
    with ThreadPoolExecutor(1) as pool:
        made.run(pool, workers=1, tasks=24)
    made.finish()
    assert sorted(told) == [(setup, seed) for setup in setups for seed in seeds]
    for other in ([], seeds[1:], [b"".join(seeds)]):
        with pytest.raises(InvalidArgument, match=r"holds a campaign with seeds '\w+', not "):
            Campaign(spec, listening, FEATURES, directory=tmp_path, seeds=other)
    Campaign(spec, listening, FEATURES, directory=tmp_path, seeds=seeds).finish()


def test_seconds_end_a_run_and_progress_is_told() -> None:
    told: list[State] = []
    made = campaign(None)
    with ThreadPoolExecutor(2) as pool:
        made.run(pool, workers=2, seconds=0.2, progress=told.append)
        done = made.state().tasks
        made.run(pool, workers=2, seconds=0.0)
    assert made.state().tasks == done > 0
    assert told[-1] == made.state()
    assert [state.tasks for state in told] == sorted(state.tasks for state in told)
    assert told[-1].counts["programs"] == 10 * done


CHILD = """
import sys
from pathlib import Path
from typing import Any
sys.path[:0] = sys.argv[2:]
from test_fuzz_campaign import run
run(Path(sys.argv[1]), 300, 2)
"""


def test_killed_ten_times_it_ends_as_one_left_alone(tmp_path: Path) -> None:
    killed, rng = 0, random.Random(1)
    command = [sys.executable, "-c", CHILD, str(tmp_path), *sys.path]
    while killed < 10:
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        journal, size = tmp_path / "journal", 0
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= size):
            time.sleep(0.001)  # it shall get somewhere
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        killed += 1
        if process.returncode == 0:
            break  # it was done before it could be killed ten times
        assert process.returncode == -signal.SIGKILL, said.decode()
    assert killed >= 3
    resumed = run(tmp_path, 300, 2)
    assert end(resumed) == end(run(None, 300, 3))
    expected = {f.finding.slug for f in resumed.findings.values()}
    assert {path.name for path in (tmp_path / "findings").iterdir()} == expected
