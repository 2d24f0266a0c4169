"""Programs made of programs: operations inserted, deleted, doubled, spliced, their fields changed.

All children of a call are made at once: an index says which operation of which parent, or which
new one, stands at each position; then some bytes are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .program import TABLE

OP_BYTES, MAX_OPS = 8, 64
Ops = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

# Bytes of an operation: op, mm, page, nr, arg (two), page2, extra.
_MM, _PAGE, _NR, _ARG, _PAGE2 = 1, 2, 3, 4, 6
_FRESH = 4  # new operations that wait for each child
_EDGES = np.array([158, 159, 160, 207, 208, 239, 240], np.uint8)  # ends of PMD, PUD, PGD entries
_SMALL = np.array([0, 1, 1, 2, 3, 3, 7], np.uint8)
_LENGTHS = np.array([0, 1, 1, 1, 1, 1, 1, 2, 2, 4, 8, 16, 16, 16, 64, 128, 129, 192], np.uint8)
_ODD = np.array(
    [sum(field.mask for field in row.fields if field.name == "odd") for row in TABLE], np.uint8
)
"""Of each operation the bits of mm that make its arguments odd."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Programs side by side.

    Attributes
    ----------
    ops : ndarray of uint8, shape (n, 64, 8)
        The operations; what lies behind `lengths` is ignored.
    lengths : ndarray of int64, shape (n,)
        Operations of each program, 0 to 64.
    """

    ops: Ops
    lengths: Ints

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> bytes:
        """Return one program as bytes."""
        return self.ops[i, : self.lengths[i]].tobytes()

    def rows(self) -> list[bytes]:
        """Return all programs as bytes."""
        data, width = self.ops.tobytes(), MAX_OPS * OP_BYTES
        ends = (OP_BYTES * self.lengths + width * np.arange(len(self))).tolist()
        return [data[i * width : end] for i, end in enumerate(ends)]

    @classmethod
    def of(cls, programs: Sequence[bytes]) -> Programs:
        """Lay byte strings side by side, whole operations each."""
        ops = np.zeros((len(programs), MAX_OPS, OP_BYTES), np.uint8)
        lengths = np.zeros(len(programs), np.int64)
        for i, program in enumerate(programs):
            data = np.frombuffer(program[: MAX_OPS * OP_BYTES], np.uint8)
            ops[i].reshape(-1)[: data.size] = data
            lengths[i] = -(-data.size // OP_BYTES)
        return cls(ops, lengths)


def swarm(rng: np.random.Generator, weights: Weights) -> Weights:
    """Return how likely each operation is in one batch: some of them only, or all.

    What needs several operations of a few kinds is met sooner where there are few kinds; those that
    weigh most are seldom left out.
    """
    share = rng.choice([0.15, 0.3, 0.6, 1.0]) ** (1 / np.maximum(weights, 1))
    chosen = weights * (rng.random(len(weights)) < share)
    some = chosen if np.count_nonzero(chosen) > 1 else weights
    likely: Weights = some / some.sum()
    return likely


def random_ops(rng: np.random.Generator, shape: tuple[int, ...], likely: Weights) -> Ops:
    """Return new operations, shape (*shape, 8): near each other and short more often than not."""
    ops = rng.integers(0, 256, (*shape, OP_BYTES), np.uint8)
    ops[..., 0] = rng.choice(len(likely), shape, p=likely)
    odd, chance = _ODD[ops[..., 0]], rng.random(shape)
    # What is odd is refused more often than not.
    named, made_odd = np.where(chance < 0.8, 0, ~odd), np.where(chance < 0.96, 0, odd)
    ops[..., _MM] &= named | made_odd
    for place in (_PAGE, _PAGE2):
        near = rng.choice(np.array([0, 0x3, 0xF, 0xFF], np.uint8), shape, p=[0.4, 0.3, 0.15, 0.15])
        edge = rng.random(shape) < 0.1
        ops[..., place] = np.where(edge, rng.choice(_EDGES, shape), ops[..., place] & near)
    usual = rng.random(shape) < 0.9
    ops[..., _NR] = np.where(usual, rng.choice(_LENGTHS, shape), ops[..., _NR])
    # Small numbers are modes, protections and accesses; of flags, few at a time are not refused.
    few = ops[..., _ARG : _ARG + 2] & rng.integers(0, 256, (*shape, 2), np.uint8)
    small = (rng.random(shape) < 0.6)[..., None]
    number = np.stack([rng.choice(_SMALL, shape), np.zeros(shape, np.uint8)], axis=-1)
    ops[..., _ARG : _ARG + 2] = np.where(small, number, few)
    return ops


def mutate(
    rng: np.random.Generator, parents: Programs, count: int, likely: Weights, longest: int = MAX_OPS
) -> Programs:
    """Make children of parents.

    Parameters
    ----------
    rng : Generator
        Where all choices come from: the same one makes the same children.
    parents : Programs
        At least one.
    count : int
        How many children.
    likely : ndarray of float64, shape (operations,)
        How likely each operation is among new ones; the sum is 1.
    longest : int
        Most operations of a child.

    Returns
    -------
    Programs
        Programs of 1 to `longest` operations.
    """
    fresh = random_ops(rng, (count * _FRESH,), likely)
    pool = np.concatenate([parents.ops.reshape(-1, OP_BYTES), fresh]).view(np.uint64)[:, 0]
    index, lengths = _arranged(rng, parents, count, longest)
    ops = np.zeros((count, MAX_OPS, OP_BYTES), np.uint8)
    ops[:, :longest] = pool[index].view(np.uint8).reshape(count, longest, OP_BYTES)
    _change_fields(rng, ops, lengths)
    return Programs(ops, lengths)


def _arranged(
    rng: np.random.Generator, parents: Programs, count: int, width: int
) -> tuple[Ints, Ints]:
    """Return the pool index of the operation at each position of each child, and lengths."""
    a = rng.integers(0, len(parents), count)
    position = np.arange(width)
    length = np.minimum(parents.lengths[a], width)
    fresh = len(parents) * MAX_OPS + np.arange(count) * _FRESH
    # Behind the end the last operation is repeated; of an empty parent there is a new one.
    index = (a * MAX_OPS)[:, None] + np.minimum(position, np.maximum(length - 1, 0)[:, None])
    index[length == 0] = fresh[length == 0, None]
    length = np.maximum(length, 1)
    # Up to two rearrangements of each child, so that two operations may come together.
    for round_ in range(2):
        kind = rng.integers(0, 10, count)
        for number, arrange in enumerate(_ARRANGEMENTS):
            rows = np.flatnonzero(kind == number)
            other = rng.integers(0, len(parents), len(rows))
            cut = _Cut(
                index=index[rows],
                length=length[rows],
                at=_below(rng, length[rows] + 1),
                size=np.minimum(rng.geometric(0.5, len(rows)), 8),
                other=other * MAX_OPS,
                other_length=np.maximum(parents.lengths[other], 1),
                other_at=_below(rng, np.maximum(parents.lengths[other], 1)),
                own_at=_below(rng, length[rows]),
                fresh=fresh[rows] + 2 * round_,
            )
            index[rows], made = arrange(cut)
            length[rows] = np.clip(made, 1, width)
    return index, length


def _below(rng: np.random.Generator, limits: Ints) -> Ints:
    """Return a random number below each limit."""
    return (rng.random(len(limits)) * limits).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where some children are cut, and what may come in: an element each."""

    index: Ints
    length: Ints
    at: Ints
    size: Ints
    other: Ints
    other_length: Ints
    other_at: Ints
    own_at: Ints
    fresh: Ints

    @property
    def position(self) -> Ints:
        return np.arange(self.index.shape[1])

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Positions from the cut on, as many as its size."""
        after = self.position >= self.at[:, None]
        return after & (self.position < (self.at + self.size)[:, None])

    def taken(self, positions: Ints) -> Ints:
        return np.take_along_axis(self.index, positions.clip(0, self.index.shape[1] - 1), 1)

    @property
    def shifted(self) -> Ints:
        """What was behind the cut, moved on by its size."""
        moved = self.position - np.where(self.position < self.at[:, None], 0, self.size[:, None])
        return self.taken(moved)

    @property
    def new(self) -> Ints:
        new: Ints = self.fresh[:, None] + (self.position - self.at[:, None]) % 2
        return new

    @property
    def from_other(self) -> Ints:
        """Operations of the other parent, side by side with the cut."""
        positions = self.other_at[:, None] + self.position - self.at[:, None]
        index: Ints = self.other[:, None] + positions.clip(0, MAX_OPS - 1)
        return index

    @property
    def doubled(self) -> Ints:
        return self.taken(self.own_at[:, None] + self.position - self.at[:, None])


def _inserted(cut: _Cut) -> tuple[Ints, Ints]:
    return np.where(cut.inside, cut.new, cut.shifted), cut.length + cut.size


def _removed(cut: _Cut) -> tuple[Ints, Ints]:
    left = cut.position + np.where(cut.position < cut.at[:, None], 0, cut.size[:, None])
    return cut.taken(left), np.maximum(cut.length - cut.size, cut.at)


def _repeated(cut: _Cut) -> tuple[Ints, Ints]:
    return np.where(cut.inside, cut.doubled, cut.shifted), cut.length + cut.size


def _spliced_in(cut: _Cut) -> tuple[Ints, Ints]:
    return np.where(cut.inside, cut.from_other, cut.shifted), cut.length + cut.size


def _crossed_over(cut: _Cut) -> tuple[Ints, Ints]:
    """Join the head of one and the tail of the other."""
    head = cut.position < cut.at[:, None]
    return np.where(head, cut.index, cut.from_other), cut.at + cut.other_length - cut.other_at


def _replaced(cut: _Cut) -> tuple[Ints, Ints]:
    return np.where(cut.inside, cut.new, cut.index), np.maximum(cut.length, cut.at + cut.size)


def _overlaid(cut: _Cut) -> tuple[Ints, Ints]:
    return np.where(cut.inside, cut.from_other, cut.index), np.maximum(
        cut.length, cut.at + cut.size
    )


_ARRANGEMENTS: tuple[Callable[[_Cut], tuple[Ints, Ints]], ...] = (
    _inserted,
    _removed,
    _repeated,
    _spliced_in,
    _crossed_over,
    _replaced,
    _overlaid,
)


def _change_fields(rng: np.random.Generator, ops: Ops, lengths: Ints) -> None:
    """Change up to four bytes of each program in place."""
    count = len(lengths)
    child = np.arange(count)
    for _ in range(4):
        row = (rng.random(count) * lengths).astype(np.int64)
        byte = rng.integers(1, OP_BYTES, count)
        byte = np.where(rng.random(count) < 0.1, 0, byte)
        old = ops[child, row, byte]
        donor = (rng.random(count) * lengths).astype(np.int64)
        kind = rng.integers(0, 12, count)
        value = np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4],
            [
                old ^ (1 << rng.integers(0, 8, count)).astype(np.uint8),
                rng.integers(0, 256, count, np.uint8),
                old + np.uint8(1),
                old - np.uint8(1),
                ops[child, donor, byte],  # the same page, file or mode as another operation
            ],
            old,
        )
        ops[child, row, byte] = value
