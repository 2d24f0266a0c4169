"""Children of programs: reproducible, of legal length, and every kind of change happens."""

from __future__ import annotations

import numpy as np
import pytest
from ptwalk.fuzz.mutate import MAX_OPS, OP_BYTES, Programs, mutate, random_ops, swarm

EVEN = np.full(30, 1 / 30)
PARENTS = [bytes(range(i, i + 8)) * n for i, n in ((1, 3), (50, 7), (100, 64), (200, 1))]


def test_programs_lie_side_by_side_and_come_back() -> None:
    programs = Programs.of([*PARENTS, b"", b"abc", b"z" * 1000])
    assert len(programs) == 7
    assert [programs[i] for i in range(4)] == PARENTS
    assert programs[4] == b""
    assert programs[5] == b"abc" + bytes(5)
    assert programs[6] == b"z" * MAX_OPS * OP_BYTES


def test_the_same_seed_makes_the_same_children() -> None:
    def children(seed: int) -> list[bytes]:
        made = mutate(np.random.default_rng(seed), Programs.of(PARENTS), 500, EVEN)
        return [made[i] for i in range(len(made))]

    assert children(7) == children(7)
    assert children(7) != children(8)


@pytest.mark.parametrize("parents", [PARENTS, [b""], [b"", bytes(8 * 64)]])
@pytest.mark.parametrize("longest", [1, 20, 64])
def test_lengths_are_legal(parents: list[bytes], longest: int) -> None:
    made = mutate(np.random.default_rng(1), Programs.of(parents), 2000, EVEN, longest)
    assert made.ops.shape == (2000, MAX_OPS, OP_BYTES)
    assert made.lengths.min() >= 1
    assert made.lengths.max() <= longest
    assert made.lengths.max() > 1 or longest == 1


def test_every_kind_of_change_happens() -> None:
    """Rows of the parents are told apart by their bytes; a change leaves most of them whole."""
    a = np.arange(16 * 8, dtype=np.uint8).tobytes()
    b = np.arange(100, 100 + 16 * 8, dtype=np.uint8).tobytes()
    rows = {a[i : i + 8]: ("a", i // 8) for i in range(0, len(a), 8)}
    rows |= {b[i : i + 8]: ("b", i // 8) for i in range(0, len(b), 8)}
    made = mutate(np.random.default_rng(3), Programs.of([a, b]), 5000, EVEN)
    seen = set()
    for i in range(len(made)):
        program = made[i]
        known = [rows.get(program[j : j + 8]) for j in range(0, len(program), 8)]
        whole = [row for row in known if row]
        parents = {name for name, _ in whole}
        numbers = [number for _, number in whole]
        kinds = {
            "unchanged": program in (a, b),
            "a field": len(program) == len(a) and known.count(None) == 1,
            "shorter": len(program) < len(a) and parents == {"a"} and None not in known,
            "doubled": len(set(whole)) < len(whole),
            "spliced": parents == {"a", "b"},
            "new": known.count(None) > 4,
            "in order": numbers == sorted(numbers) and len(numbers) > 10,
        }
        seen |= {kind for kind, is_so in kinds.items() if is_so}
    assert seen == set(kinds)


def test_new_operations_are_of_every_kind_and_near_each_other() -> None:
    ops = random_ops(np.random.default_rng(0), (10, 1000), np.full(43, 1 / 43))
    assert ops.shape == (10, 1000, 8)
    assert set(np.unique(ops[..., 0])) == set(range(43))
    assert np.mean(ops[..., 2] < 16) > 0.6
    assert len(np.unique(ops[..., 2])) > 200  # but not all
    assert np.mean(ops[..., 1] == 0) > 0.7
    odd = ops[..., 1] & np.where(ops[..., 0] == 4, 0xF0, 0)  # mmap's
    assert 0 < np.count_nonzero(odd) < 0.1 * np.count_nonzero(ops[..., 0] == 4)


def test_a_swarm_has_some_operations_only() -> None:
    rng, weights = np.random.default_rng(0), np.where(np.arange(40) < 3, 8.0, 1.0)
    swarms = [swarm(rng, weights) for _ in range(200)]
    sizes = {np.count_nonzero(likely) for likely in swarms}
    assert min(sizes) > 1
    assert min(sizes) < 10
    assert max(sizes) == 40
    for likely in swarms:
        assert np.isclose(likely.sum(), 1)
        ratio = likely[likely > 0] / weights[likely > 0]
        assert np.allclose(ratio, ratio[0])  # the weights among those that are left
