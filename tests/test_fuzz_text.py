"""Programs as text: what is written reads back as the same program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptwalk import InvalidArgument, fuzz

TEXT = """\
mmap 0x00007f0000000000 64K rw- shared shmem 0
userfaultfd - -
register 0x00007f0000000000 64K wp
writeprotect 0x00007f0000000000 2M wp
access 0x00007f00001ff000 write 0 mm=1
mremap 0x00007f0000002000 8K 0x00007f8000000000 16K maymove|fixed
copy 0x00007f003fff0000 4M dontwake odd=length|wrap uffd=2
mprotect_many 0x00007f0000000000 4K r-- 8K 15 odd=at mm=1
load_pages 0x00007f0000000000 64K rw_dirty nx anon|exclusive asked
mmap 0x00007f0000000000 1G --- - file2 3"""


def test_a_program_in_words() -> None:
    program = fuzz.from_text(TEXT)
    assert fuzz.to_text(program) == TEXT
    assert fuzz.decode(program)["page2"][5] == 240
    assert fuzz.decode(program)["mm"].tolist() == [0, 0, 0, 0, 1, 0, 0x26, 0x11, 0, 0]


@given(st.binary(max_size=200))
def test_text_gives_the_canonical_program_back(program: bytes) -> None:
    assert fuzz.from_text(fuzz.to_text(program)) == fuzz.canonical(program)


def test_comments_and_empty_lines_are_ignored() -> None:
    text = "# a fork\n\n  fork   # of the first\n"
    assert fuzz.from_text(text) == fuzz.encode([{"op": "fork"}])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fork\nunmap 0", "line 2: operation 'unmap' is not known"),
        ("munmap 0x00007f0000000000", "line 1: munmap has 1 fields; write: munmap at length"),
        ("munmap 0x7e0000000000 4K", "at '0x7e0000000000' is not one"),
        ("munmap here 4K", "at 'here' is not one"),
        ("munmap 0x7f0000000000 3K", "length '3K' is not one"),
        ("mprotect 0x7f0000000000 4K rwz", "prot 'rwz' is not one"),
        ("register 0x7f0000000000 4K wp|all", "mode 'all' is not one"),
        ("madvise 0x7f0000000000 4K nothing", "advice 'nothing' is not one"),
        ("mmap 0x7f0000000000 4K rw- - disk 0", "backing 'disk' is not one"),
        ("fork mm=16", "mm '16' is not one; use 0 to 15"),
        ("fork uffd=1", "fork has no uffd="),
        ("fork odd=at", "fork has no odd="),
        ("munmap 0x7f0000000000 4K odd=to", "odd 'to' is not one; use names of at|length|wrap"),
        ("read\nfork mm=1 mm=2", "line 2: fork has mm= more than once; leave one"),
        ("read uffd=2 uffd=2", "line 1: read has uffd= more than once"),
    ],
)
def test_errors_name_the_line_the_field_and_what_it_takes(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        fuzz.from_text(text)
    assert said in str(caught.value)


def test_text_is_text() -> None:
    with pytest.raises(InvalidArgument, match="text b'fork' is no str"):
        fuzz.from_text(b"fork")  # type: ignore[arg-type]
