"""The exceptions: their text, their errno, and that they survive pickling."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest
from ptwalk.errors import InvalidArgument, KernelError, LiveError, PtwalkError


def test_kernel_error_says_errno_and_name() -> None:
    error = KernelError(errno.EINVAL, "UFFDIO_WRITEPROTECT: start 0x123 is not page aligned")
    text = "[Errno 22] EINVAL: UFFDIO_WRITEPROTECT: start 0x123 is not page aligned"
    assert str(error) == text
    assert error.errno == errno.EINVAL
    assert error.done is None


def test_an_errno_without_a_name_is_still_printed() -> None:
    assert str(KernelError(9999, "why")) == "[Errno 9999] unknown errno: why"


@pytest.mark.parametrize("clone", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_kernel_error_keeps_all_when_copied(clone: object) -> None:
    assert callable(clone)
    error = clone(KernelError(errno.ENOENT, "not registered", done=4096))
    assert type(error) is KernelError
    assert (error.errno, error.done) == (errno.ENOENT, 4096)
    assert str(error) == "[Errno 2] ENOENT: not registered"


def test_the_classes_are_also_the_builtin_ones() -> None:
    assert issubclass(KernelError, (PtwalkError, OSError))
    assert issubclass(KernelError, OSError)
    assert issubclass(LiveError, OSError)
    assert issubclass(InvalidArgument, ValueError)
    for error in (KernelError, LiveError, InvalidArgument):
        assert issubclass(error, PtwalkError)


def test_live_error_is_pickled_too() -> None:
    error = pickle.loads(pickle.dumps(LiveError(errno.ESRCH, "process 7 has exited")))
    assert type(error) is LiveError
    assert str(error) == "[Errno 3] ESRCH: process 7 has exited"
