"""Who runs the tasks of a campaign: processes of this machine, or a cluster of Dask workers."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..errors import InvalidArgument

_PR_SET_PDEATHSIG = 1


class _Pool(ProcessPoolExecutor):
    """Processes that no Ctrl-C reaches, from their first moment on."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; a worker that is started for it inherits the mask."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill(self) -> None:
        """End the workers at once, whatever they do."""
        for process in list((self._processes or {}).values()):
            process.kill()


def _begin() -> None:
    """Make a worker end with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Give a pool of processes that do not outlive this one, nor an error of the block."""
    # Not forked: the core has threads, and a forked child has none of them.
    context = multiprocessing.get_context("spawn")
    pool = _Pool(workers, context, _begin)
    try:
        yield pool
    except BaseException:
        pool.kill()  # nobody waits for what they do; without this, a second Ctrl-C would for ever
        raise
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
