"""What the corpus keeps loses the operations that it does not need, and nothing else."""

from __future__ import annotations

import numpy as np
from ptwalk import fuzz
from ptwalk.fuzz.corpus import Entry, features_of, first_reached
from ptwalk.fuzz.judges import run_all
from ptwalk.fuzz.mutate import Programs, mutate
from ptwalk.fuzz.trim import trimmed

EXECUTOR = fuzz.Executor("6.18", "shmem-16")


def reached(programs: Programs) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return features_of(run_all(EXECUTOR, programs).coverage)


def test_no_operation_of_what_is_left_can_be_spared() -> None:
    even = np.full(len(fuzz.OPERATIONS), 1 / len(fuzz.OPERATIONS))
    programs = mutate(np.random.default_rng(3), Programs.of([b""]), 100, even, 12)
    programs = mutate(np.random.default_rng(4), programs, 100, even, 12)
    features = reached(programs)
    first = first_reached(features, np.zeros(features.shape[1], np.bool_))
    entries = [Entry(programs[row], found) for row, found in first.items()]
    left = trimmed(reached, entries)
    assert [entry.features for entry in left] == [entry.features for entry in entries]
    assert sum(len(e.program) for e in left) < sum(len(e.program) for e in entries)
    for entry in left:
        wanted = list(entry.features)
        assert reached(Programs.of([entry.program]))[0, wanted].all()
        last = entry.program[:-8]  # tried after all that stand behind it
        assert not last or not reached(Programs.of([last]))[0, wanted].all()


def test_nothing_to_trim() -> None:
    assert trimmed(reached, []) == []
    one = Entry(b"\0" * 8, (0,))
    assert trimmed(reached, [one]) == [one]
