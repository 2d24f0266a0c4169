"""Smaller programs that still show what a program shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import InvalidArgument
from .executor import Executor, RunResult
from .program import canonical, canonical_op, decode, encode, members, operation_of

Op = dict[str, int]
Keeps = Callable[[list[Op]], bool]


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


def _smaller(op: Op) -> Iterator[Op]:
    """Yield the operation with one field less: 0, half, a bit fewer, one less."""
    for field in operation_of(op).fields:
        value = field.get(op)
        candidates = (0, value >> 1, value & (value - 1), value - 1)
        for less in dict.fromkeys(c for c in candidates if 0 <= c < value):
            rest = op[field.member] & ~field.mask
            yield canonical_op({**op, field.member: rest | less << field.shift})


def _size(op: Op) -> tuple[int, ...]:
    return tuple(field.get(op) for field in operation_of(op).fields)


def _shrink_arguments(ops: list[Op], keeps: Keeps) -> list[Op]:
    """Bring the fields of each operation towards 0 as far as the property is kept."""
    for i in range(len(ops)):
        shrinking = True
        while shrinking:
            shrinking = False
            for less in _smaller(ops[i]):
                changed = [*ops[:i], less, *ops[i + 1 :]]
                if _size(less) < _size(ops[i]) and keeps(changed):
                    ops, shrinking = changed, True
                    break
    return ops


def _keeper(
    judge: Executor | Callable[[bytes], bool],
    program: bytes,
    wanted: Callable[[RunResult], bool] | None,
) -> Callable[[bytes], bool]:
    if not isinstance(judge, Executor):
        if wanted is not None:
            raise InvalidArgument("property is for an executor; let the predicate itself judge")
        return judge
    executor = judge
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
    program: bytes,
    property: Callable[[RunResult], bool] | None = None,
) -> bytes:
    """Return a smaller program with the same property.

    Parameters
    ----------
    executor : Executor, or callable of bytes
        What runs the programs; or a predicate, which says whether a program has the property.
    program : bytes
        A program that has it.
    property : callable of RunResult, optional
        Whether a result has the property. By default: the same violations as `program`, and no
        others.

    Returns
    -------
    bytes
        In canonical form where that has the property. No operation can be left out, and no field
        be made less by itself. The same on every run.

    Raises
    ------
    InvalidArgument
        For a program without the property; without `property`, for one that violates nothing.
    """
    has = _keeper(executor, program, property)
    if not has(program):
        raise InvalidArgument("the program does not have the property that is to be kept")
    least = canonical(program)
    if not has(least):
        return program

    def keeps(ops: list[Op]) -> bool:
        return has(encode(ops))

    ops = [members(op) for op in decode(least)]
    before: list[Op] | None = None
    while ops != before:
        before = ops
        ops = _shrink_arguments(_without_chunks(ops, keeps), keeps)
    return encode(ops)
