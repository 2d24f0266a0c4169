"""Smaller programs that still show what a program shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from ..errors import InvalidArgument
from .executor import Executor, RunResult
from .program import (
    Field,
    ProgramLike,
    as_bytes,
    canonical,
    canonical_op,
    decode,
    encode,
    members,
    operation_of,
)

Op = dict[str, int]
Keeps = Callable[[list[Op]], bool]

_FEW_BITS = 4
"""Of fields of so many bits all smaller values are tried."""


def _without_chunks(ops: list[Op], keeps: Keeps) -> list[Op]:
    """Drop runs of operations, long ones first, while the rest keeps the property."""
    size = max(1, len(ops) // 2)
    while ops:
        at, dropped = 0, False
        while at < len(ops):
            rest = ops[:at] + ops[at + size :]
            if keeps(rest):
                ops, dropped = rest, True
            else:
                at += size
        if size > 1:
            size //= 2
        elif not dropped:
            break
    return ops


def _less(field: Field, value: int) -> Iterable[int]:
    """Return what to try in place of a field's value, the least first."""
    if not value or field.bits <= _FEW_BITS or field.role in ("choice", "choice_or_file"):
        return range(value)
    if field.role == "flags":
        return sorted({0, *(value & ~(1 << i) for i in range(field.bits) if value >> i & 1)})
    return sorted({0, value >> 1, value & (value - 1), value - 1})


def _with(op: Op, field: Field, value: int) -> Op:
    return canonical_op({**op, field.member: op[field.member] & ~field.mask | value << field.shift})


def _shrink_arguments(ops: list[Op], keeps: Keeps, only: str = "") -> list[Op]:
    """Bring the fields of each operation, or those of one name, towards 0 if the property stays."""
    for i in range(len(ops)):
        for field in operation_of(ops[i]).fields:
            if only not in ("", field.name):
                continue
            shrinking = True
            while shrinking:
                shrinking = False
                for less in _less(field, field.get(ops[i])):
                    changed = [*ops[:i], _with(ops[i], field, less), *ops[i + 1 :]]
                    if keeps(changed):
                        ops, shrinking = changed, True
                        break
    return ops


def _kind(field: Field) -> str:
    """Return what fields have in common whose equal values mean the same; "" for other fields."""
    if field.role == "number":
        return field.name
    return {"place": "place", "length": "length", "pages": "length"}.get(field.role, "")


def _mapped(ops: list[Op], kind: str, value: int, less: int, *, above: bool) -> list[Op]:
    """Put `less` for `value` in all operations; with `above`, lower greater values as far."""
    changed = list(ops)
    for i, op in enumerate(ops):
        for field in operation_of(op).fields:
            old = field.get(op)
            if _kind(field) == kind and (old == value or (above and old > value)):
                changed[i] = _with(changed[i], field, old - value + less)
    return changed


def _shrink_together(ops: list[Op], keeps: Keeps) -> list[Op]:
    """Bring what several operations have in common towards 0: places, lengths, numbers."""
    done: set[tuple[str, int]] = set()
    while True:
        found: dict[tuple[str, int], Field] = {}
        for op in ops:
            for field in operation_of(op).fields:
                found.setdefault((_kind(field), field.get(op)), field)
        left = [(kind, value) for kind, value in sorted(found) if kind and value]
        chosen = next((one for one in left if one not in done), None)
        if chosen is None:
            return ops
        done.add(chosen)
        kind, value = chosen
        for less in _less(found[chosen], value):
            tried = (_mapped(ops, kind, value, less, above=above) for above in (True, False))
            changed = next((one for one in tried if keeps(one)), None)
            if changed is not None:
                ops, done = changed, set()
                break


def _keeper(
    judge: Executor | Callable[[bytes], bool],
    program: bytes,
    wanted: Callable[[RunResult], bool] | None,
) -> Callable[[bytes], bool]:
    if not isinstance(judge, Executor):
        if not callable(judge):
            raise InvalidArgument(
                f"executor {judge!r} is no Executor and cannot be called; pass one, or a predicate "
                "of bytes"
            )
        if wanted is not None:
            raise InvalidArgument("property is for an executor; let the predicate itself judge")
        return judge
    executor = judge
    if wanted is not None and not callable(wanted):
        raise InvalidArgument(f"property {wanted!r} cannot be called; pass a predicate of results")
    if wanted is None:
        violations = set(executor.run(program).violations)
        if not violations:
            raise InvalidArgument(
                "the program violates nothing; pass property= to say what it must still show"
            )
        return lambda smaller: set(executor.run(smaller).violations) == violations
    return lambda smaller: wanted(executor.run(smaller))


def minimise(
    executor: Executor | Callable[[bytes], bool],
    program: ProgramLike,
    property: Callable[[RunResult], bool] | None = None,
) -> bytes:
    """Return a smaller program with the same property.

    Parameters
    ----------
    executor : Executor, or callable of bytes
        What runs the programs; or a predicate, which says whether a program has the property.
    program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
        A program that has it.
    property : callable of RunResult, optional
        Whether a result has the property. By default: the same violations as `program`, and no
        others.

    Returns
    -------
    bytes
        In canonical form; the property is lost when an operation is left out, when a choice
        becomes a smaller one, when a flag goes, or when a number, place or length becomes 0, half,
        one less or the same without its lowest bit, by itself or in all operations that have it.
        Where the canonical form lacks the property, `program` as it is. The same on every run.

    Raises
    ------
    InvalidArgument
        For a program without the property; without `property`, for one that violates nothing; for
        an `executor` or `property` of another type, and what is no program.
    """
    program = as_bytes(program)
    has = _keeper(executor, program, property)
    if not has(program):
        raise InvalidArgument("the program does not have the property that is to be kept")
    least = canonical(program)
    if not has(least):
        return program

    has = cache(has)  # the last round tries again what others have tried

    def keeps(ops: list[Op]) -> bool:
        return has(encode(ops))

    ops = [members(op) for op in decode(least)]
    before: list[Op] | None = None
    while ops != before:
        before = ops
        ops = _without_chunks(ops, keeps)
        ops = _shrink_arguments(ops, keeps, only="odd")  # whole pages may then become less together
        ops = _shrink_together(ops, keeps)
        ops = _shrink_arguments(ops, keeps)
    return encode(ops)
