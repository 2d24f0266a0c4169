"""Records are on the disk whole or not at all, and one campaign at a time writes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ptwalk.errors import InvalidArgument
from ptwalk.fuzz.journal import Journal, read_journal, remove_unfinished, write_atomically

RECORDS = [{"task": n, "text": "x" * n} for n in range(20)]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    assert read_journal(path) == []
    with Journal(path) as journal:
        assert journal.records == []
        journal.append(RECORDS[:3])
        journal.append([])
        journal.append(RECORDS[3:])
    with Journal(path) as journal:
        assert journal.records == RECORDS
    assert read_journal(path) == RECORDS


def test_a_torn_record_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.append(RECORDS[:2])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert read_journal(path) == RECORDS[:1]
        with Journal(path) as journal:
            assert journal.records == RECORDS[:1]
            journal.append(RECORDS[2:3])
        assert read_journal(path) == [RECORDS[0], RECORDS[2]]


def test_a_changed_byte_is_an_error_and_the_journal_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.append(RECORDS)
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for at in (second, second + 20, len(whole) - 2):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        line, start = whole[:at].count(10) + 1, whole.rfind(b"\n", 0, at) + 1
        said = f"{path}: line {line}, at byte {start}, is no record .* from a copy"
        for read in (Journal, read_journal):
            with pytest.raises(InvalidArgument, match=said):
                read(path)
        assert path.read_bytes() == data
    path.write_bytes(whole)
    with Journal(path) as journal:  # the lock was given back
        assert journal.records == RECORDS


def test_what_a_full_disk_left_of_a_record_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.append(RECORDS[:1])
        with path.open("ab") as file:
            file.write(b"0000")
        journal.append(RECORDS[1:2])
    assert read_journal(path) == RECORDS[:2]


def test_two_campaigns_do_not_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path), pytest.raises(InvalidArgument, match="in use by another campaign"):
        Journal(path)
    with Journal(path) as journal:  # given back
        journal.append(RECORDS[:1])


WRITER = """
import sys
from pathlib import Path
from ptwalk.fuzz.journal import Journal, write_atomically
journal = Journal(Path(sys.argv[1]))
for n in range(len(journal.records), 10**9):
    journal.append([{"task": n, "text": "x" * (n % 5000)}])
    write_atomically(Path(sys.argv[2]), b"y" * (n % 3 + 1) * 100000)
    print(n, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, other = tmp_path / "journal", tmp_path / "file"
    command = [sys.executable, "-c", WRITER, str(path), str(other)]
    done = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(4):
            done = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        records = read_journal(path)
        assert [record["task"] for record in records] == list(range(len(records)))
        assert len(records) > done
        assert set(other.read_bytes()) == {ord("y")}
        assert len(other.read_bytes()) % 100000 == 0


def test_a_file_is_put_in_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path: Path) -> None:
    places = [tmp_path, tmp_path / "corpus", tmp_path / "findings" / "one"]
    left = [place / ".a.json.17.tmp" for place in places]
    others = [place / name for place in places for name in (".keep", ".notes.tmp", "a.17.tmp")]
    others += [tmp_path / name / ".a.17.tmp" for name in ("mine", "findings", "corpus/mine")]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    directory, link = tmp_path / ".d.17.tmp", tmp_path / "corpus" / ".link.17.tmp"
    directory.mkdir()
    link.symlink_to(others[0])
    remove_unfinished(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*others, directory, link))
    remove_unfinished(tmp_path / "findings" / "none")  # nothing there is nothing to do
