"""Programs as bytes and arrays: every byte string is one, its canonical form the same one."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import REPO
from ptwalk import InvalidArgument, _core, fuzz
from ptwalk.fuzz.program import LENGTHS, PLACES, TABLE, Field, from_version_1

programs = st.binary(max_size=80)
executor = fuzz.Executor("6.18", "mixed")


def test_an_operation_has_eight_bytes() -> None:
    assert fuzz.OP_DTYPE.itemsize == 8
    assert fuzz.FORMAT_VERSION == 2
    assert fuzz.MAX_OPS == 64
    assert len(set(fuzz.OPERATIONS)) == len(fuzz.OPERATIONS)


def test_members_are_little_endian_in_the_order_of_the_format() -> None:
    op = fuzz.decode(bytes([1, 2, 3, 4, 5, 6, 7, 8]))[0]
    assert op.tolist() == (1, 2, 3, 4, 5 | 6 << 8, 7, 8)


def test_places_and_lengths_are_those_of_the_format() -> None:
    base, pmd, pud, pgd = 0x7F0000000000, 2 << 20, 1 << 30, 1 << 39
    for place, address in {
        0: base,
        127: base + 127 * 4096,
        128: base + pmd - 32 * 4096,
        191: base + pmd + 31 * 4096,
        192: base + pud - 16 * 4096,
        223: base + pud + 15 * 4096,
        224: base + pgd - 16 * 4096,
        255: base + pgd + 15 * 4096,
    }.items():
        assert PLACES[place] == address
    assert LENGTHS[:3] == (0, 4096, 8192)
    assert (LENGTHS[127], LENGTHS[128], LENGTHS[191]) == (127 * 4096, pmd, 8 * pmd)
    assert (LENGTHS[192], LENGTHS[194], LENGTHS[255]) == (pud, 3 * pud, 4 * pud)


def test_encode_takes_arrays_mappings_and_sequences() -> None:
    number = fuzz.OPERATIONS.index("munmap")
    expected = bytes([number, 0, 3, 2, 0, 0, 0, 0])
    assert fuzz.encode([{"op": "munmap", "page": 3, "nr": 2}]) == expected
    assert fuzz.encode([("munmap", 0, 3, 2)]) == expected
    assert fuzz.encode([(number, 0, 3, 2, 0, 0, 0)]) == expected
    assert fuzz.encode(fuzz.decode(expected)) == expected
    assert fuzz.encode([]) == b""


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ({"op": "unmap"}, "operation 'unmap' is not known"),
        ({"op": 0, "page": 256}, "page 256"),
        ({"op": 0, "pages": 1}, "members"),
        ((0,) * 8, "more than 7"),
        ({"op": "fork", "mm": "a"}, "operation {'op': 'fork', 'mm': 'a'}: 'str' object"),
        ({"op": "fork", "mm": 1.5}, "'float' object cannot be interpreted as an integer"),
        (5, "operation 5 is no mapping or sequence"),
        ("fork", "operation 'fork' is no mapping or sequence; pass its members"),
    ],
)
def test_encode_names_what_it_cannot_take(op: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        fuzz.encode([op])  # type: ignore[list-item]


def test_encode_refuses_an_array_of_another_dtype_and_what_is_no_list() -> None:
    with pytest.raises(InvalidArgument, match="OP_DTYPE"):
        fuzz.encode(np.zeros(2, np.uint8))
    for ops in (5, b"fork"):
        with pytest.raises(InvalidArgument, match=f"ops {ops!r} is no list"):
            fuzz.encode(ops)  # type: ignore[arg-type]


TAKES_PROGRAMS: list[Callable[[Any], Any]] = [
    fuzz.decode,
    fuzz.canonical,
    fuzz.validate,
    fuzz.to_text,
    executor.steps,
    executor.run,
]


@pytest.mark.parametrize("take", TAKES_PROGRAMS)
def test_whatever_holds_bytes_is_a_program(take: Callable[[Any], Any]) -> None:
    program = fuzz.standard_mix(1)[0].tobytes()
    wide = np.zeros(2 * len(program), np.uint8)
    wide[::2] = np.frombuffer(program, np.uint8)
    same = [bytearray(program), memoryview(program), fuzz.standard_mix(2)[0], wide[::2]]
    for other in (*same, fuzz.decode(program)):
        assert str(take(other)) == str(take(program))


@pytest.mark.parametrize("take", TAKES_PROGRAMS)
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("fork", "program 'fork' is not bytes-like; use ptwalk.fuzz.from_text"),
        (None, "program None is not bytes-like; pass bytes"),
        ([1, 2], "program [1, 2] is not bytes-like; pass bytes"),
        (np.uint8(3), "is not bytes-like; pass bytes"),
        (array("H", [1]), "program array('H', [1]) is not bytes-like; pass bytes"),
        (np.zeros((2, 8), np.uint8), "program has dtype uint8 and shape (2, 8); pass one row"),
        (np.zeros(8, np.int64), "program has dtype int64 and shape (8,); pass one row"),
    ],
)
def test_what_holds_no_bytes_is_named(take: Callable[[Any], Any], program: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        take(program)
    assert said in str(caught.value)


@given(programs)
def test_decode_pads_and_encode_gives_the_bytes_back(program: bytes) -> None:
    assert fuzz.encode(fuzz.decode(program)) == program + bytes(-len(program) % 8)


def test_what_follows_the_last_operation_that_runs_is_ignored() -> None:
    long = bytes(8 * fuzz.MAX_OPS) + b"\x04rest"
    assert len(fuzz.decode(long)) == fuzz.MAX_OPS
    assert executor.run(long).operations == fuzz.MAX_OPS
    assert executor.run(long).digest == executor.run(long[: 8 * fuzz.MAX_OPS]).digest
    assert fuzz.validate(long) == ["5 bytes after operation 64 are ignored"]


@given(programs)
def test_the_canonical_form_runs_identically_and_has_nothing_to_be_said_about(
    program: bytes,
) -> None:
    least = fuzz.canonical(program)
    assert fuzz.validate(least) == []
    assert fuzz.canonical(least) == least
    assert executor.run(least)[:2] == executor.run(program)[:2]
    padded = program + bytes(-len(program) % 8)
    assert bool(fuzz.validate(program)) == (least != program), (padded, least)


V1_OPERATIONS = 41
V1_DIGESTS = {"shmem-16": 0x991BD2F21EF54EA3, "mixed": 0x58C5B6285DB103FD}
V1_PROGRAM = """
access 0x00007f0000001000 write 0
writeprotect 0x00007f0000000000 64K wp
fork
mprotect 0x00007f0000000000 8K r-- mm=1
reclaim 0x00007f0000002000 16K
mmap 0x00007f0000040000 64K rw- populate shmem 3
set_ptes 0x00007f0000040000 8K marker_wp dirty
fail_table_alloc 3
"""


@pytest.mark.parametrize("setup", V1_DIGESTS)
def test_canonical_programs_of_version_1_keep_their_meaning(setup: str) -> None:
    program = fuzz.from_text(V1_PROGRAM)
    assert fuzz.decode(program)["op"].tolist() == [0, 20, 9, 6, 13, 4, 36, 40]
    assert fuzz.OPERATIONS[V1_OPERATIONS - 1] == "fail_table_alloc"
    assert fuzz.Executor("6.18", setup).run(program).digest == V1_DIGESTS[setup]


def test_what_version_1_ignored_is_left_out_of_its_programs() -> None:
    # It had 41 operations, and no odd arguments: 41 was the first again, the other half of mm free.
    program = fuzz.encode([(V1_OPERATIONS, 0xF1, 3), ("munmap", 0x32, 3, 2), ("wake", 0x21, 3, 2)])
    assert fuzz.to_text(from_version_1(program)).splitlines() == [
        "access 0x00007f0000003000 read 0 mm=1",
        "munmap 0x00007f0000003000 8K mm=2",
        "wake 0x00007f0000003000 8K uffd=2",
    ]


def test_validate_says_what_is_clamped_and_what_is_unused() -> None:
    nr = len(fuzz.OPERATIONS)
    program = fuzz.encode([{"op": nr + 9, "page": 7}, {"op": "mlock", "nr": 255}])
    assert fuzz.validate(program + b"\0") == [
        "the last operation is padded with 7 zero bytes",
        f"operation 0 (fork): op {nr + 9} is taken as 9",
        "operation 0 (fork): page 7 is not used",
        "operation 1 (mlock): nr 255 is taken as 129",
    ]


def test_the_standard_mix_is_the_mix_that_it_says() -> None:
    shares = dict(_core.fuzz_mix_shares())
    assert sum(shares.values()) == 100
    programs = fuzz.standard_mix(500, seed=3)
    assert programs.shape == (500, 160)
    assert (programs == fuzz.standard_mix(500, seed=3)).all()
    assert (programs != fuzz.standard_mix(500, seed=4)).any()
    ops = programs.reshape(-1).view(fuzz.OP_DTYPE)
    names = np.array(fuzz.OPERATIONS)[ops["op"]]
    share = {name: 100 * float(np.mean(names == name)) for name in set(names)}
    assert share["access"] == pytest.approx(30, abs=2)
    assert share["writeprotect"] == pytest.approx(28, abs=2)
    assert share["mprotect"] == pytest.approx(10, abs=2)
    assert "fork" not in share
    assert int((ops["page"].astype(int) + ops["nr"]).max()) <= 16
    for program in programs[:50]:
        assert fuzz.validate(program.tobytes()) == []


def test_the_page_about_programs_has_the_table_of_the_code() -> None:
    def field_text(field: Field) -> str:
        whole = field.shift == 0 and field.bits == 8 * fuzz.OP_DTYPE[field.member].itemsize
        bits = "" if whole else f"[{field.shift}:{field.shift + field.bits}]"
        names = f": {', '.join(field.names)}" if field.names else ""
        return f"`{field.name}` {field.member}{bits} {field.role}{names}"

    def also(field: Field) -> str:
        return f"{field.name} ({', '.join(field.names)})" if field.names else field.name

    page = (REPO / "docs" / "fuzzing.md").read_text(encoding="utf-8")
    rows = [
        f"| {i} | `{row.name}`{' (raw)' if row.raw else ''} | "
        + "; ".join(field_text(f) for f in row.fields if f.member != "mm")
        + f" | {', '.join(also(f) for f in row.fields if f.member == 'mm')} |"
        for i, row in enumerate(TABLE)
    ]
    assert "\n".join(rows) in page
    for name, what, _ in _core.fuzz_setups():
        assert f"| `{name}` | {what} |" in page
    told = re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:end|each) \|$", page, re.MULTILINE)
    assert tuple(told) == fuzz.VIOLATIONS
