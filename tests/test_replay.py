"""Replays recorded programs, and shows that a replay notices every kind of difference."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from paths import trace_files
from ptwalk import cli, replay
from ptwalk.replay.compare import Identities
from ptwalk.replay.trace import Pages, Recorded, describe_facts

Json = dict[str, Any]
TRACES = {path.name.removesuffix(".jsonl.gz"): path for path in trace_files()}
WHOLE = {"anon", "shmem", "private-file", "swap", "fork", "vma", "tables"}  # no huge pages at all


def test_every_family_is_recorded_under_three_kernels() -> None:
    names = {f"{kernel}-{family}" for kernel in ("6.1", "6.12", "6.18") for family in WHOLE}
    assert names | {"6.18-features", "6.18-zap-guard"} <= TRACES.keys()


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_replays_without_a_difference(name: str) -> None:
    report = replay.replay_file(TRACES[name])
    assert not report.differences, "\n".join(map(str, report.differences[:5]))
    assert set(report.not_replayed) <= {"hugetlb", "MADV_COLLAPSE", "huge page"}
    if report.family in WHOLE:
        _, programs = replay.read_programs(TRACES[name])
        assert report.steps == sum(len(program.steps) for program in programs)
        assert not report.not_replayed


# One changed bit


def programs(family: str) -> Iterator[Json]:
    """Decode the recorded 6.18 programs of a family."""
    (path,) = trace_files(kernel="6.18", family=family)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)
        yield from map(json.loads, lines)


def write_trace(path: Path, *lines: Json) -> Path:
    """Write programs, or anything else, as a trace file."""
    header = {"type": "header", "format": "ptwalk-trace", "version": 1}
    header |= {"kernel": lines[0]["kernel"], "family": lines[0]["family"]}
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in (header, *lines))
    return path


def flip(word: str, bit: int) -> str:
    return hex(int(word, 16) ^ 1 << bit)


def runs(step: Json) -> Iterator[Json]:
    for process in step.get("state", {}).values():
        for region in process.values():
            yield from region


def change_run(field: str, value: Callable[[Any], Any]) -> Callable[[Json], bool]:
    """Return what changes `field` in the first run of a step that has it."""

    def change(step: Json) -> bool:
        for run in runs(step):
            if field in run:
                run[field] = value(run[field])
                return True
        return False

    return change


def change_result(step: Json) -> bool:
    if step["result"]["errno"] is None:
        return False
    step["result"]["errno"] = "ENOTDIR"
    return True


def change_message(key: str, value: Callable[[Any], Any]) -> Callable[[Json], bool]:
    def change(step: Json) -> bool:
        for message in step.get("messages", []):
            if key in message:
                message[key] = value(message[key])
                return True
        return False

    return change


def change_pending(step: Json) -> bool:
    for message in step.get("messages", []):
        if "raw" in message.get("pending", {}):
            message["pending"]["raw"] = flip(message["pending"]["raw"], 10)
            return True
    return False


def drop_message(step: Json) -> bool:
    return bool(step.get("messages")) and step["messages"].pop() is not None


def change_vma(key: str, value: Callable[[Any], Any]) -> Callable[[Json], bool]:
    def change(step: Json) -> bool:
        for process in step.get("vmas", {}).values():
            for vmas in process.values():
                if vmas and vmas[0]["flags"]:
                    vmas[0][key] = value(vmas[0][key])
                    return True
        return False

    return change


def change_signal(step: Json) -> bool:
    for signal in step.get("signals", []):
        signal["code"] ^= 3
        return True
    return False


def change_resident(step: Json) -> bool:
    for name, text in step.get("resident", {}).items():
        step["resident"][name] = ("1" if text[0] == "0" else "0") + text[1:]
        return True
    return False


def change_vmpte(step: Json) -> bool:
    if "vmpte_kb" not in step:
        return False
    step["vmpte_kb"]["p"] -= 4
    return True


CHANGES = {
    "bit 1 of an entry": change_run("raw", lambda raw: flip(raw, 1)),
    "bit 63 of an entry": change_run("raw", lambda raw: flip(raw, 63)),
    "bit 57 of pagemap": change_run("pm", lambda pm: flip(pm, 57)),
    "exclusivity": change_run("ex", lambda ex: 1 - ex),
    "level": change_run("lvl", {"pte": "pmd", "pmd": "pte", "pud": "pmd", "pgd": "pud"}.get),
    "class": change_run("cls", {"none": "marker", "present": "none", "marker": "none"}.get),
    "marker bits": change_run("mk", lambda mk: mk ^ 2),
    "kind of page": change_run("pk", lambda _: "zero"),
    "errno": change_result,
    "flags of a message": change_message("flags", lambda flags: [*flags, "MINOR"]),
    "place of a message": change_message("at", lambda at: {**at, "page": at["page"] + 1}),
    "answer to a message": change_message("resolve", lambda r: {**r, "value": 1}),
    "pending entry": change_pending,
    "missing message": drop_message,
    "VMA flag": change_vma("flags", lambda flags: flags[1:]),
    "VMA permission": change_vma("perm", lambda perm: perm[:2] + ("-" if perm[2] == "x" else "x")),
    "VMA boundary": change_vma("end", lambda end: end + 1),
    "signal code": change_signal,
    "residence": change_resident,
    "VmPTE": change_vmpte,
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_fact_is_noticed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = CHANGES[name]
    for program in chain(programs("shmem"), programs("anon")):
        number = next((i for i, step in enumerate(program["steps"]) if change(step)), None)
        if number is not None and "vmpte_kb" not in program["volatile"]:
            break
    else:
        pytest.fail(f"no program has a {name}")
    path = write_trace(tmp_path / "changed.jsonl.gz", program)
    assert replay.run_cli([path], as_json=True) == 1
    (report,) = json.loads(capsys.readouterr().out)["files"]
    (difference,) = report["differences"]
    assert (difference["program"], difference["step"]) == (program["id"], number)
    assert difference["recorded"] != difference["got"]


def test_a_page_under_another_name_is_noticed(tmp_path: Path) -> None:
    """A later run calls a page what another page was called before."""
    for program in programs("anon"):
        named = [run for step in program["steps"] for run in runs(step) if run.get("pg") == "a2"]
        if named:
            named[-1]["pg"] = "a1"
            report = replay.replay_file(write_trace(tmp_path / "renamed.jsonl.gz", program))
            (difference,) = report.differences
            assert "identity" in difference.what
            return
    pytest.fail("no program has two pages")


def test_names_are_one_to_one() -> None:
    pages = Identities()
    assert pages.agree(2, 100)
    assert pages.agree(2, 100)
    assert not pages.agree(2, 101), "a second page under one name"
    assert not pages.agree(4, 100), "a second name for one page"
    assert pages.known_as(100) == "a1"
    assert pages.known_as(101) == "new"


def test_a_page_that_was_swapped_out_may_change_its_name_once() -> None:
    pages = Identities()
    assert pages.agree(2, 100)
    pages.paged_out({2})
    assert pages.agree(2, 101), "the old name, a new frame"
    assert not pages.agree(2, 100)
    pages.paged_out({2})
    assert pages.agree(4, 101), "a new name, the old frame"


# What is not replayed


def test_programs_with_hugetlb_are_counted_apart(tmp_path: Path) -> None:
    first, second, *_ = programs("shmem")
    first["regions"][0]["page_shift"] = 21
    report = replay.replay_file(write_trace(tmp_path / "t.jsonl.gz", first, second))
    assert [program.status for program in report.programs] == ["not replayed", "ok"]
    assert report.steps == len(second["steps"])
    assert report.not_replayed == {"hugetlb": 1}
    assert str(report).endswith("0 differ, 1 not replayed to the end (1 hugetlb)")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"op": {"name": "madvise", "region": "A", "advice": "COLLAPSE"}}, "MADV_COLLAPSE"),
        ({"op": {"name": "process_vm_writev"}}, "operation process_vm_writev"),
        ({"state": {"p": {"A": [{"i": 0, "n": 1, "lvl": "pmd", "cls": "huge"}]}}}, "huge page"),
        ({"state": {"p": {"A": [{"cls": "present", "pk": "anon,thp"}]}}}, "huge page"),
    ],
)
def test_a_program_is_replayed_up_to_what_is_not_modelled(
    change: Json, reason: str, tmp_path: Path
) -> None:
    program = next(programs("anon"))
    program["steps"][5] |= change
    path = write_trace(tmp_path / "t.jsonl.gz", program)
    (report,) = replay.replay_file(path).programs
    assert (report.status, report.steps, report.not_replayed) == ("not replayed", 5, reason)
    assert replay.run_cli([path], as_json=False) == 0


# Output


def test_the_command_line_prints_a_line_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = next(programs("anon"))
    path = write_trace(tmp_path / "t.jsonl.gz", program)
    assert cli.main(["replay", str(path), str(path)]) == 0
    line = f"6.18  anon  1 programs, {len(program['steps'])} steps: 0 differ\n"
    assert capsys.readouterr().out == 2 * line


def test_a_difference_is_printed_side_by_side_with_decoded_entries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = next(programs("anon"))
    number = next(
        i for i, step in enumerate(program["steps"]) if CHANGES["bit 1 of an entry"](step)
    )
    assert replay.run_cli([write_trace(tmp_path / "t.jsonl.gz", program)], as_json=False) == 1
    _, where, recorded, got = capsys.readouterr().out.splitlines()
    assert where.startswith(f"{program['id']} step {number}: p ")
    assert recorded.split()[0] == "recorded"
    assert got.split()[0] == "ptwalk"
    assert "P US" in recorded
    assert "P RW US" in got


def test_json_output_counts_what_the_lines_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_trace(tmp_path / "t.jsonl.gz", *list(programs("anon"))[:3])
    assert replay.run_cli([path], as_json=True) == 0
    (report,) = json.loads(capsys.readouterr().out)["files"]
    assert report["file"] == str(path)
    assert (report["kernel"], report["family"]) == ("6.18", "anon")
    assert (report["programs"], report["differ"]) == (3, 0)
    assert report["differences"] == []


@pytest.mark.parametrize(
    "content", [b"", b"plain text", gzip.compress(b'{"type": "program"}\n', mtime=0)]
)
def test_what_is_no_trace_gives_status_2(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(content)
    assert replay.run_cli([path], as_json=False) == 2
    assert "is not a trace" in capsys.readouterr().err


def test_a_missing_file_gives_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.run_cli([tmp_path / "none.jsonl.gz"], as_json=False) == 2
    assert "none.jsonl.gz" in capsys.readouterr().err


# The record


def test_runs_unfold_into_pages() -> None:
    pages = Pages(6)
    run = {"i": 1, "n": 3, "lvl": "pte", "cls": "present", "raw": "0x8000000000000067", "ex": 1}
    pages.apply([run | {"pg": "a4", "pgstep": 1, "pk": "anon", "pm": "0x8100000000000000"}])
    assert pages.raw.tolist() == [0, *[0x8000000000000067] * 3, 0, 0]
    assert pages.names.tolist() == [0, 8, 10, 12, 0, 0]
    text = describe_facts(int(pages.facts[1]))
    assert text == "pte present anon ex=1 pm=0x8100000000000000"


def test_pageout_takes_the_pages_whose_entries_went_away() -> None:
    present = {"lvl": "pte", "cls": "present", "raw": "0x67", "pg": "a1", "pgstep": 1}
    swap = {"lvl": "pte", "cls": "swap", "raw": "0xc", "slot": "s1"}
    program = next(programs("anon"))
    record = Recorded(replay.Program.from_json(program))
    record.apply({"state": {"p": {"A": [{"i": 0, "n": 3, **present}]}}})
    op = {"name": "madvise", "region": "A", "first": 1, "count": 2, "advice": "PAGEOUT"}
    step = {"proc": "p", "op": op, "state": {"p": {"A": [{"i": 0, "n": 2, **swap}]}}}
    assert record.pages_out(step) == [1]
