"""Who runs the tasks of a campaign: processes of this machine, or a cluster of Dask workers."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module

from ..errors import InvalidArgument

_PR_SET_PDEATHSIG = 1


def _begin() -> None:
    """Make a worker end with its parent, and leave Ctrl-C to it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Give a pool of processes that do not outlive this one."""
    # Not forked: the core has threads, and a forked child has none of them.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """Give an executor of the workers of a Dask cluster, and how many threads they have.

    Parameters
    ----------
    address : str
        Of its scheduler, as ``tcp://host:8786``.

    Raises
    ------
    InvalidArgument
        distributed is not installed, or nothing answers.
    """
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise InvalidArgument(
            "--cluster needs the package distributed; pip install ptwalk[cluster]"
        ) from None
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise InvalidArgument(
            f"cluster {address!r} does not answer: {error}; start one with `dask scheduler`"
        ) from None
    with client, client.get_executor(pure=False) as executor:
        yield executor, max(sum(client.nthreads().values()), 1)
