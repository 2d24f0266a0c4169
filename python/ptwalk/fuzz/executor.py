"""The executor: runs programs, each from the same state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgument
from .program import decode, members
from .text import op_text

SETUPS: dict[str, bytes] = {name: program for name, _, program in _core.fuzz_setups()}
VIOLATIONS: tuple[str, ...] = _core.fuzz_violations()

_U64 = npt.NDArray[np.uint64]


class RunResult(NamedTuple):
    """What one program came to.

    Attributes
    ----------
    digest : int
        Hash of the final state and of all results; equal for every leaf kernel and process.
    visible : int
        Hash of what user space sees: errnos, messages, signals, bytes done. Comparable between
        profiles.
    coverage : array of uint64, shape (branches,)
        How often each branch of `Executor.branches` was taken.
    violations : tuple of str
        Names of the invariants that did not hold.
    operations : int
        How many operations ran.
    """

    digest: int
    visible: int
    coverage: _U64
    violations: tuple[str, ...]
    operations: int


class BatchResult(NamedTuple):
    """What the programs of a batch came to; one element or row for each.

    Attributes
    ----------
    digest, visible : array of uint64, shape (n,)
        As in `RunResult`.
    coverage : array of uint8, shape (n, branches), or None
        As in `RunResult`, counts above 255 as 255; None where it was not asked for.
    violations : array of uint64, shape (n,)
        Bit i stands for the i-th of `VIOLATIONS`.
    """

    digest: _U64
    visible: _U64
    coverage: npt.NDArray[np.uint8] | None
    violations: _U64


class Step(NamedTuple):
    """One operation in words.

    Attributes
    ----------
    text : str
        The operation, as `to_text` writes it.
    outcome : str
        All that is known of its result.
    visible : str
        What user space sees of it; equal under two profiles that differ by nothing visible.
    """

    text: str
    outcome: str
    visible: str


def violation_names(bits: int) -> tuple[str, ...]:
    """Return the names of the violations whose bits are set."""
    return tuple(name for i, name in enumerate(VIOLATIONS) if bits >> i & 1) if bits else ()


class Executor:
    """Runs programs on one machine, each from the state that a setup made.

    Parameters
    ----------
    profile : str
        Which kernel; see `ptwalk.profiles`.
    setup : str or bytes
        A name of `SETUPS`, or the program that makes the state.
    kernel : str, optional
        The leaf kernel, such as "scalar"; None takes the fastest. Results are the same.
    raw : bool
        Whether raw operations run; False makes them do nothing, as no kernel has them.
    judge : {"end", "each"}
        When violations are looked for: in the final state and in the accounts of changes of
        protection, or also before and after each operation, which is some hundred times slower.

    Raises
    ------
    InvalidArgument
        For an unknown profile, setup, kernel or judge.
    """

    def __init__(
        self,
        profile: str = "6.18",
        setup: str | bytes = "shmem-16",
        *,
        kernel: str | None = None,
        raw: bool = True,
        judge: str = "end",
    ) -> None:
        if isinstance(setup, str) and setup not in SETUPS:
            raise InvalidArgument(
                f"setup {setup!r} is not known; use a program or one of {', '.join(SETUPS)}"
            )
        if judge not in ("end", "each"):
            raise InvalidArgument(f"judge {judge!r} is not known; use 'end' or 'each'")
        program = SETUPS[setup] if isinstance(setup, str) else bytes(setup)
        self._core = _core.FuzzExecutor(profile, {}, program, kernel or "", raw, judge == "each")
        self._arguments = (profile, setup, kernel, raw, judge)

    def __repr__(self) -> str:
        profile, setup, kernel, raw, judge = self._arguments
        return f"Executor({profile!r}, {setup!r}, kernel={kernel!r}, raw={raw}, judge={judge!r})"

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self._arguments[0]

    @property
    def setup(self) -> str | bytes:
        """The setup, as it was given."""
        return self._arguments[1]

    @property
    def kernel(self) -> str | None:
        """Name of the leaf kernel that was asked for; None for the fastest."""
        return self._arguments[2]

    @property
    def raw(self) -> bool:
        """Whether raw operations run."""
        return self._arguments[3]

    @property
    def judge(self) -> str:
        """When violations are looked for, "end" or "each"."""
        return self._arguments[4]

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches that coverage counts, in its order."""
        return _core.fuzz_branches()

    def run(self, program: bytes) -> RunResult:
        """Run one program from the setup's state.

        Parameters
        ----------
        program : bytes
            Any byte string.

        Returns
        -------
        RunResult
            What it came to.
        """
        digest, visible, coverage, bits, operations = self._core.run(program)
        return RunResult(digest, visible, coverage, violation_names(bits), operations)

    def run_batch(
        self, programs: Sequence[bytes] | npt.NDArray[np.uint8], *, coverage: bool = True
    ) -> BatchResult:
        """Run many programs, each from the setup's state, without Python in between.

        Parameters
        ----------
        programs : sequence of bytes, or array of uint8, shape (n, bytes)
            The programs; of an array, a row is one.
        coverage : bool
            Whether branches are told.

        Returns
        -------
        BatchResult
            What each came to. The GIL is released meanwhile.

        Raises
        ------
        InvalidArgument
            For an array of another dtype or shape, and an element that is no bytes object.
        """
        return BatchResult(*self._core.run_batch(programs, coverage))

    def steps(self, program: bytes) -> list[Step]:
        """Run one program and tell it operation by operation, for people and for comparisons.

        Parameters
        ----------
        program : bytes
            Any byte string.

        Returns
        -------
        list of Step
            One for each operation that ran.
        """
        ops = [members(op) for op in decode(program)]
        told = self._core.steps(program)
        return [Step(op_text(op), *words) for op, words in zip(ops, told, strict=True)]

    def state_hash(self) -> int:
        """Return a hash of the state that the last run left, or of the setup's before the first."""
        return self._core.state_hash()

    def entries_hash(self) -> int:
        """Return a hash of the words of all PTEs that the last run left, and of nothing else."""
        return self._core.entries_hash()
