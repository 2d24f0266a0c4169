"""The corpus keeps what is new, in order, whatever order the work was done in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ptwalk.errors import InvalidArgument
from ptwalk.fuzz.corpus import STEPS, Corpus, Entry, features_of, first_reached, read_programs


def test_features_are_branches_by_how_often_they_were_met() -> None:
    coverage = np.array([[0, 1], [2, 7], [255, 3]], np.uint8)
    features = features_of(coverage)
    assert features.shape == (3, 2 * len(STEPS))
    assert features.astype(int).tolist() == [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
    ]


def test_a_feature_belongs_to_the_first_program_that_reaches_it() -> None:
    features = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]], np.bool_)
    seen = np.zeros(4, np.bool_)
    assert first_reached(features, seen) == {0: (1,), 1: (2,), 2: (0,)}
    seen[[0, 1]] = True
    assert first_reached(features, seen) == {1: (2,)}
    assert not seen[2]
    assert first_reached(features, np.ones(4, np.bool_)) == {}


def test_entries_without_anything_new_are_not_kept() -> None:
    corpus = Corpus(4)
    assert corpus.add([Entry(b"a", (0, 1)), Entry(b"b", (1,))]) == [Entry(b"a", (0, 1))]
    assert corpus.add([Entry(b"c", (1, 3))]) == [Entry(b"c", (3,))]
    assert [entry.program for entry in corpus.entries] == [b"a", b"c"]
    assert corpus.seen.tolist() == [True, True, False, True]


def test_programs_of_a_directory_are_read_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "aa").mkdir()
    assert read_programs(tmp_path) == (b"a", b"b", b"c")
    with pytest.raises(InvalidArgument, match="has no files of programs; give the directory"):
        read_programs(tmp_path / "aa")
    for path in (tmp_path / "none", tmp_path / "a"):
        with pytest.raises(InvalidArgument, match=f"{path} is no directory; give one"):
            read_programs(path)
