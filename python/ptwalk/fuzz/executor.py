"""The executor: runs programs, each from the same state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgument
from ..machine import kernels, profiles
from .program import OP_DTYPE, ProgramLike, as_bytes, decode, elements, members
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
    setup : str, or program as `run` takes it
        A name of `SETUPS`, or the program that makes the state.
    kernel : str, optional
        The leaf kernel, such as "scalar"; None takes the fastest. Results are the same.
    raw : bool
        Whether raw operations run; False makes them do nothing, as no kernel has them.
    judge : {"end", "each"}
        When violations are looked for: in the final state and in the accounts of changes of
        protection, or also before and after each operation, which is some hundred times slower.
    config : mapping of str to bool, optional
        Build options of the kernel that differ from the profile's, as for `ptwalk.Machine`.
    levels : int
        Of page tables, 4 or 5.
    max_tables : int, optional
        How many page-table frames may be in use at once, as for `ptwalk.Machine`; operations that
        need more are refused with ENOMEM.

    Raises
    ------
    InvalidArgument
        For an unknown profile, setup, kernel, judge or option, a `raw` that is no bool,
        `levels` other than 4 and 5, and a `max_tables` out of range.
    """

    def __init__(
        self,
        profile: str = "6.18",
        setup: str | ProgramLike = "shmem-16",
        *,
        kernel: str | None = None,
        raw: bool = True,
        judge: str = "end",
        config: Mapping[str, bool] | None = None,
        levels: int = 4,
        max_tables: int | None = None,
    ) -> None:
        if not isinstance(profile, str):
            raise InvalidArgument(f"profile {profile!r} is not a name; use one of {profiles()}")
        if kernel is not None and not isinstance(kernel, str):
            raise InvalidArgument(f"kernel {kernel!r} is not a name; use one of {kernels()}")
        if not isinstance(raw, bool):
            raise InvalidArgument(f"raw {raw!r} is no bool; use True or False")
        if isinstance(setup, str) and setup not in SETUPS:
            raise InvalidArgument(
                f"setup {setup!r} is not known; use a program or one of {', '.join(SETUPS)}"
            )
        if judge not in ("end", "each"):
            raise InvalidArgument(f"judge {judge!r} is not known; use 'end' or 'each'")
        program = SETUPS[setup] if isinstance(setup, str) else as_bytes(setup, "setup")
        if config is not None and not isinstance(config, Mapping):
            raise InvalidArgument(f"config {config!r} is not a mapping; pass {{option: bool}}")
        options = dict(config or {})
        self._core = _core.FuzzExecutor(
            profile, options, program, kernel or "", raw, judge == "each", levels, max_tables
        )
        given = setup if isinstance(setup, str) else program
        self._arguments = (profile, given, kernel, raw, judge, options, levels, max_tables)

    def __repr__(self) -> str:
        profile, setup, kernel, raw, judge, config, levels, max_tables = self._arguments
        return (
            f"Executor({profile!r}, {setup!r}, kernel={kernel!r}, raw={raw}, judge={judge!r}, "
            f"config={config!r}, levels={levels}, max_tables={max_tables})"
        )

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self._arguments[0]

    @property
    def setup(self) -> str | bytes:
        """The setup: the name that was given, or the program."""
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
    def config(self) -> dict[str, bool]:
        """The build options that were given."""
        return dict(self._arguments[5])

    @property
    def levels(self) -> int:
        """Levels of page tables."""
        return self._arguments[6]

    @property
    def max_tables(self) -> int | None:
        """The limit on page-table frames that was given; None for the largest."""
        return self._arguments[7]

    def checkpoint(self) -> int:
        """Let runs start from the state that the last one left, or from the setup's before any.

        Returns
        -------
        int
            What `restore` takes. Going back to it before each run costs what the run touched.
        """
        return self._core.checkpoint()

    def restore(self, checkpoint: int = 0) -> None:
        """Let runs start from an earlier checkpoint's state again; that is the state at once.

        Parameters
        ----------
        checkpoint : int
            What `checkpoint` returned; 0 is the setup's state. Later ones are given up.

        Raises
        ------
        InvalidArgument
            The checkpoint was given up, or is none of this executor's. Nothing changes.
        """
        self._core.restore(checkpoint)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches that coverage counts, in its order."""
        return _core.fuzz_branches()

    def run(self, program: ProgramLike) -> RunResult:
        """Run one program from the setup's state.

        Parameters
        ----------
        program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
            Any byte string.

        Returns
        -------
        RunResult
            What it came to.

        Raises
        ------
        InvalidArgument
            For what holds no bytes, such as text.
        """
        if type(program) is not bytes:  # by far the most are
            program = as_bytes(program)
        digest, visible, coverage, bits, operations = self._core.run(program)
        return RunResult(digest, visible, coverage, violation_names(bits), operations)

    def run_batch(
        self,
        programs: Iterable[ProgramLike] | npt.NDArray[np.uint8] | npt.NDArray[np.void],
        *,
        coverage: bool = True,
    ) -> BatchResult:
        """Run many programs, each from the setup's state, without Python in between.

        Parameters
        ----------
        programs : iterable of programs, or array of uint8 or `OP_DTYPE`, two-dimensional
            The programs, each as `run` takes it; of an array, a row is one.
        coverage : bool
            Whether branches are told.

        Returns
        -------
        BatchResult
            What each came to. The GIL is released meanwhile.

        Raises
        ------
        InvalidArgument
            For an array of another dtype or shape, or that is not C-contiguous, and an element
            that holds no bytes.
        """
        plain: Any = programs
        if not isinstance(programs, np.ndarray):
            each = elements(programs, "programs")
            plain = [p if type(p) is bytes else as_bytes(p) for p in each]
        elif programs.dtype == OP_DTYPE and programs.flags.c_contiguous:
            plain = programs.view(np.uint8)
        return BatchResult(*self._core.run_batch(plain, coverage))

    def steps(self, program: ProgramLike) -> list[Step]:
        """Run one program and tell it operation by operation, for people and for comparisons.

        Parameters
        ----------
        program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
            Any byte string.

        Returns
        -------
        list of Step
            One for each operation that ran.

        Raises
        ------
        InvalidArgument
            For what holds no bytes, such as text.
        """
        program = as_bytes(program)
        ops = [members(op) for op in decode(program)]
        told = self._core.steps(program)
        return [Step(op_text(op), *words) for op, words in zip(ops, told, strict=True)]

    def state_hash(self) -> int:
        """Return a hash of the state that the last run left, or of the setup's before the first."""
        return self._core.state_hash()

    def entries_hash(self) -> int:
        """Return a hash of the words of all PTEs that the last run left, and of nothing else."""
        return self._core.entries_hash()
