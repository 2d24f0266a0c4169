"""docs/performance.md is what the committed results file yields, and explains what was missed."""

from __future__ import annotations

import re

import pytest
from bench_results import whole_run
from paths import REPO
from ptwalk.bench import document, load
from ptwalk.bench.document import COMMAND

RESULTS = REPO / "benchmarks" / "results" / "performance.json"
PAGE = REPO / "docs" / "performance.md"


def test_the_page_is_that_of_the_committed_results() -> None:
    if document(load(RESULTS)) != PAGE.read_text(encoding="utf-8"):
        pytest.fail(
            "docs/performance.md is not what benchmarks/results/performance.json yields; write it "
            "by: ptwalk bench --from benchmarks/results/performance.json --document "
            "docs/performance.md",
            pytrace=False,
        )


def test_the_command_writes_both_files() -> None:
    assert f"--json {RESULTS.relative_to(REPO)}" in COMMAND
    assert f"--document {PAGE.relative_to(REPO)}" in COMMAND
    assert COMMAND in document(whole_run())


def test_the_page_has_machine_goals_and_reasons() -> None:
    page = document(whole_run())
    assert "| compiler | GCC 12.2.0 |" in page
    row = next(r for r in page.splitlines() if r.startswith("| 16-page protect"))
    assert re.search(r"missed by 2\.0 times \| 16 pages \| \S", row)
    assert "medians lie up to 1.10 times above" in page
    assert "not to be relied on" not in page


def test_a_noisy_run_says_so() -> None:
    results = whole_run()
    for line in results.lines:
        for name, figure in line.figures.items():
            line.figures[name] = type(figure)(figure.least, 3 * figure.least, 9.0, 5)
    assert "**these figures are not to be relied on**" in document(results)
