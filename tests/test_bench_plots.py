"""Pictures of a run: one for each subject that was measured."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from bench_results import whole_run
from ptwalk import InvalidArgument
from ptwalk.bench import plot
from ptwalk.bench.plots import PICTURES

REASON = "matplotlib is not installed; it is in the dependency group bench"


def test_a_run_has_every_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason=REASON)
    written = plot(whole_run(), tmp_path / "new")
    assert [path.stem for path in written] == list(PICTURES)
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_has_no_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason=REASON)
    results = whole_run()
    exports = dataclasses.replace(results, lines=[*results.of("export")])
    assert [path.name for path in plot(exports, tmp_path)] == ["export.png"]


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InvalidArgument, match=r"pip install ptwalk\[plot\]"):
        plot(whole_run(), tmp_path)
