"""Who runs the tasks changes nothing: threads here, or the workers of a Dask cluster."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ptwalk import cli
from ptwalk.errors import InvalidArgument, PtwalkError
from ptwalk.fuzz.bench import Workbench, work
from ptwalk.fuzz.campaign import Campaign, Spec
from ptwalk.fuzz.cluster import cluster, processes

TASKS = 3
SPEC = Spec("uffd-wp-v2", ("shmem-16",), against="6.18", judges=("invariants", "against"))


def campaign() -> Campaign:
    return Campaign(SPEC, work, Workbench(SPEC, "shmem-16").features)


def found(made: Campaign) -> object:
    return {key: found.finding for key, found in made.findings.items()}, made.corpus.entries


def test_a_dask_cluster_finds_what_threads_find(capsys: pytest.CaptureFixture[str]) -> None:
    distributed: Any = pytest.importorskip("distributed", reason="distributed is not installed")
    with ThreadPoolExecutor(1) as pool:
        here = campaign()
        here.run(pool, workers=1, tasks=TASKS)
    assert here.findings
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as local:
        address = local.scheduler_address
        with cluster(address) as (executor, workers):
            assert workers == 2
            there = campaign()
            there.run(executor, workers=workers, tasks=TASKS)
        arguments = ["--profile", "uffd-wp-v2", "--against", "6.18", "--setup", "shmem-16"]
        arguments += ["--judge", "invariants", "--judge", "against", "--tasks", str(TASKS)]
        assert cli.main(["fuzz", *arguments, "--cluster", address, "--json"]) == 1
    assert found(there) == found(here)
    told = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in told["findings"]] == list(here.findings)


def test_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    with pytest.raises(InvalidArgument, match="cluster 'nowhere' does not answer"):
        cluster("nowhere").__enter__()


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object) -> object:
        raise ImportError(name)

    monkeypatch.setattr("ptwalk.fuzz.cluster.import_module", missing)
    with pytest.raises(InvalidArgument, match=r"pip install ptwalk\[cluster\]"):
        cluster("tcp://127.0.0.1:1").__enter__()


CHILD = """
import os, time
from ptwalk.fuzz.cluster import processes
if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    for _ in range(1000):
        if not alive(worker):
            return
        time.sleep(0.02)
    pytest.fail("the worker still runs")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_a_worker_that_died_between_tasks_is_told() -> None:
    with processes(1) as pool:
        assert pool.submit(os.getpid).result()
        with pytest.raises(BrokenExecutor):
            pool.submit(os._exit, 1).result()
        with pytest.raises(PtwalkError, match=r"a worker died in one of the tasks 0, 1; the same"):
            campaign().run(pool, workers=1, tasks=2)


def test_an_error_does_not_wait_for_workers() -> None:
    workers = []

    def interrupted() -> None:
        with processes(1) as pool:
            workers.append(pool.submit(os.getpid).result())
            pool.submit(time.sleep, 3600)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(workers[0])


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    with processes(1) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGINT)
        assert pool.submit(builtins.sum, [1, 2]).result() == 3
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, set()).result()
        assert blocked == {signal.SIGINT}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()


def test_a_pool_runs_tasks() -> None:
    with processes(1) as pool:
        assert pool.submit(builtins.sum, [1, 2]).result() == 3
