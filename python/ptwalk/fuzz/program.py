"""Programs of the fuzzing backend: bytes, structured arrays, checks.

A program is a byte string of operations of eight bytes, little endian: ``u8 op; u8 mm; u8 page;
u8 nr; u16 arg; u8 page2; u8 extra``. Every byte string is one: operands are taken modulo what
exists, a short last operation is padded with zero bytes, and what follows the 64th is ignored.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgument

FORMAT_VERSION: int = _core.FUZZ_FORMAT_VERSION
MAX_OPS: int = _core.FUZZ_MAX_OPS

PLACES: tuple[int, ...] = _core.fuzz_places()
"""The address of each place."""
LENGTHS: tuple[int, ...] = _core.fuzz_lengths()
"""The bytes of each length."""
MAX_LENGTH: int = _core.FUZZ_MAX_LENGTH
"""Most bytes of operations that work page by page."""

MEMBERS = ("op", "mm", "page", "nr", "arg", "page2", "extra")
OP_DTYPE = np.dtype([(name, "<u2" if name == "arg" else "u1") for name in MEMBERS])

ProgramLike = bytes | bytearray | memoryview | npt.NDArray[np.uint8] | npt.NDArray[np.void]
"""What is taken as a program: bytes-like objects, and rows of uint8 or of `OP_DTYPE`."""


@dataclass(frozen=True)
class Field:
    """One field of an operation: some bits of a member of `OP_DTYPE`.

    Attributes
    ----------
    name : str
        What it is.
    role : str
        How its value is read: "number", "place", "length", "pages", "choice", "flags", "prot" or
        "choice_or_file".
    member : str
        The member that holds it.
    shift, bits : int
        Which bits of the member.
    names : tuple of str
        Of a choice its values, of flags its bits, lowest first.
    """

    name: str
    role: str
    member: str
    shift: int
    bits: int
    names: tuple[str, ...]

    @property
    def mask(self) -> int:
        """Bits of the member that the field takes."""
        return ((1 << self.bits) - 1) << self.shift

    def get(self, op: Mapping[str, int]) -> int:
        """Return the field's bits in an operation."""
        return (op[self.member] & self.mask) >> self.shift

    def canonical(self, value: int) -> int:
        """Return the least value that means the same."""
        if self.role == "choice":
            return value % len(self.names)
        if self.role == "flags":
            return int(value & ((1 << len(self.names)) - 1))
        if self.role in ("length", "pages"):
            most = MAX_LENGTH if self.role == "pages" else LENGTHS[value]
            return LENGTHS.index(min(LENGTHS[value], most))
        return value


@dataclass(frozen=True)
class Operation:
    """One row of the table of operations."""

    name: str
    raw: bool
    fields: tuple[Field, ...]


TABLE = tuple(
    Operation(name, raw, tuple(Field(*field) for field in fields))
    for name, raw, fields in _core.fuzz_operations()
)
OPERATIONS = tuple(row.name for row in TABLE)
_VERSION_1_OPERATIONS = OPERATIONS.index("fail_table_alloc") + 1
_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}


def standard_mix(n: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Return random programs of a stated mix of operations, the same on every machine.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Another seed gives others.

    Returns
    -------
    array of uint8, shape (n, 160)
        A program in each row: 20 operations on 16 pages. In percent 34 accesses, 28 wr-protects
        and resolves, 10 mprotects, 14 zaps (dontneed, reclaim, holes), 10 changes of VMAs (mmap,
        munmap, register) and 4 reads of messages; no forks.
    """
    return _core.fuzz_standard_mix(n, seed)


def op_number(name: object) -> int:
    """Return the number of an operation from its name."""
    if isinstance(name, str) and name in _NUMBERS:
        return _NUMBERS[name]
    raise InvalidArgument(f"operation {name!r} is not known; use one of {', '.join(OPERATIONS)}")


def as_bytes(program: object, name: str = "program") -> bytes:
    """Return a program as bytes, whatever holds it; bytes are returned as they are."""
    if isinstance(program, bytes):
        return program
    if isinstance(program, np.ndarray):
        if program.ndim != 1 or program.dtype not in (np.uint8, OP_DTYPE):
            raise InvalidArgument(
                f"{name} has dtype {program.dtype} and shape {program.shape}; pass one row of "
                "uint8 or of ptwalk.fuzz.OP_DTYPE"
            )
        return program.tobytes()
    try:
        view = memoryview(program)  # type: ignore[arg-type]
        if view.ndim == view.itemsize == 1:  # a number of numpy is a buffer too
            return view.tobytes()
    except (BufferError, TypeError, ValueError):
        pass  # told below
    remedy = "use ptwalk.fuzz.from_text" if isinstance(program, str) else "pass bytes, or an array"
    raise InvalidArgument(f"{name} {reprlib.repr(program)} is not bytes-like; {remedy}")


def elements(given: object, name: str) -> Iterable[Any]:
    """Return what is given, which must be an iterable of operations or programs."""
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return given
    raise InvalidArgument(f"{name} {reprlib.repr(given)} is no list; pass a list of them")


def _row(op: Mapping[str, Any] | Sequence[Any]) -> tuple[int, ...]:
    """Return the members of one operation, given as a mapping or a sequence."""
    if isinstance(op, Mapping):
        values = dict(op)
    elif isinstance(op, str | bytes) or not hasattr(op, "__len__"):
        raise InvalidArgument(
            f"operation {op!r} is no mapping or sequence; pass its members, or use "
            "ptwalk.fuzz.from_text"
        )
    elif len(op) > len(MEMBERS):
        raise InvalidArgument(f"operation {op!r} has more than {len(MEMBERS)} members")
    else:
        values = dict(zip(MEMBERS, op, strict=False))
    if unknown := set(values) - set(MEMBERS):
        raise InvalidArgument(
            f"operation {op!r} has members {sorted(unknown)}; use {', '.join(MEMBERS)}"
        )
    if isinstance(values.get("op"), str):
        values["op"] = op_number(values["op"])
    try:
        row = tuple(operator.index(values.get(name, 0)) for name in MEMBERS)
    except TypeError as error:
        raise InvalidArgument(f"operation {op!r}: {error}; pass ints") from None
    for name, value in zip(MEMBERS, row, strict=True):
        if not 0 <= value < 1 << 8 * OP_DTYPE[name].itemsize:
            raise InvalidArgument(
                f"{name} {value} of operation {op!r} does not fit; "
                f"it has {8 * OP_DTYPE[name].itemsize} bits"
            )
    return row


def encode(ops: npt.NDArray[np.void] | Iterable[Mapping[str, Any] | Sequence[Any]]) -> bytes:
    """Return operations as a program.

    Parameters
    ----------
    ops : array of `OP_DTYPE`, or iterable of mapping or sequence
        The operations; in mappings and sequences ``op`` may be a name of `OPERATIONS`, and what is
        left out is 0.

    Returns
    -------
    bytes
        Eight bytes for each operation.

    Raises
    ------
    InvalidArgument
        For an unknown operation or member, a value that is no integer or does not fit, and what is
        no operation.
    """
    if isinstance(ops, np.ndarray):
        if ops.dtype != OP_DTYPE:
            raise InvalidArgument(f"ops has dtype {ops.dtype}; use ptwalk.fuzz.OP_DTYPE")
        return ops.tobytes()
    return np.array([_row(op) for op in elements(ops, "ops")], dtype=OP_DTYPE).tobytes()


def decode(program: ProgramLike) -> npt.NDArray[np.void]:
    """Return the operations of a program that run.

    Parameters
    ----------
    program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
        Any byte string.

    Returns
    -------
    array of `OP_DTYPE`, shape (n,)
        At most `MAX_OPS` operations, as they lie in the program; a copy.

    Raises
    ------
    InvalidArgument
        For what holds no bytes, such as text.
    """
    cut = as_bytes(program)[: MAX_OPS * OP_DTYPE.itemsize]
    padded = cut + bytes(-len(cut) % OP_DTYPE.itemsize)
    return np.frombuffer(padded, dtype=OP_DTYPE).copy()


def operation_of(op: Mapping[str, int]) -> Operation:
    """Return the row of the table that an operation names."""
    return TABLE[op["op"] % len(TABLE)]


def from_version_1(program: bytes) -> bytes:
    """Return a program of format version 1 in canonical form: it meant the same then.

    Version 1 had fewer operations, and no odd arguments.
    """
    ops = decode(program)
    ops["op"] %= _VERSION_1_OPERATIONS
    for op in ops:
        odd = sum(field.mask for field in operation_of(op).fields if field.name == "odd")
        op["mm"] &= ~odd & 0xFF
    return canonical(ops)


def canonical_op(op: Mapping[str, int]) -> dict[str, int]:
    """Return the operation with the least members that mean the same."""
    row = operation_of(op)
    least = dict.fromkeys(MEMBERS, 0)
    least["op"] = op["op"] % len(TABLE)
    for field in row.fields:
        least[field.member] |= field.canonical(field.get(op)) << field.shift
    return least


def members(op: np.void) -> dict[str, int]:
    """Return an element of a decoded program as plain numbers."""
    return {name: int(op[name]) for name in MEMBERS}


def canonical(program: ProgramLike) -> bytes:
    """Return the program of least members that runs identically.

    Parameters
    ----------
    program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
        Any byte string.

    Returns
    -------
    bytes
        What it ignores is cut off or 0, and choices are the first of those that mean the same.

    Raises
    ------
    InvalidArgument
        For what holds no bytes, such as text.
    """
    return encode(canonical_op(members(op)) for op in decode(program))


def validate(program: ProgramLike) -> list[str]:
    """Say what of a program is redundant or clamped.

    Parameters
    ----------
    program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
        Any byte string.

    Returns
    -------
    list of str
        In words; empty for a program in canonical form. No byte string is an error.

    Raises
    ------
    InvalidArgument
        For what holds no bytes, such as text.
    """
    program, size, found = as_bytes(program), OP_DTYPE.itemsize, []
    if len(program) > MAX_OPS * size:
        found.append(f"{len(program) - MAX_OPS * size} bytes after operation {MAX_OPS} are ignored")
    elif len(program) % size:
        found.append(f"the last operation is padded with {-len(program) % size} zero bytes")
    for i, op in enumerate(map(members, decode(program))):
        least, row = canonical_op(op), operation_of(op)
        for name in MEMBERS:
            if least[name] == op[name]:
                continue
            used = name == "op" or any(field.member == name for field in row.fields)
            why = f"is taken as {least[name]}" if used else "is not used"
            found.append(f"operation {i} ({row.name}): {name} {op[name]} {why}")
    return found
