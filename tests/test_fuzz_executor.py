"""The executor: the same program gives the same result, however and wherever it runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import InvalidArgument, fuzz

WP_READ_WRITE = """\
writeprotect 0x00007f0000000000 64K wp
access 0x00007f0000001000 read 0
access 0x00007f0000002000 write 0
read
writeprotect 0x00007f0000002000 4K -
access 0x00007f0000002000 write 0"""


def random_programs(n: int, ops: int = 16) -> list[bytes]:
    rng = np.random.default_rng(7)
    return [rng.bytes(8 * ops) for _ in range(n)]


def test_the_seeds_story_step_by_step() -> None:
    ex = fuzz.Executor("uffd-wp-v2", "shmem-16")
    told = ex.steps(fuzz.from_text("access 0x00007f0000000000 write 0\n" + WP_READ_WRITE))
    assert [step.visible for step in told] == [
        "done",
        "",
        "done",
        "blocked; pagefault WRITE WP 0x7f0000002000",
        "pagefault WRITE WP 0x7f0000002000",
        "",
        "done",
    ]
    assert told[1].text == "writeprotect 0x00007f0000000000 64K wp"
    assert "none_to_marker=0xf; present=0x1" in told[1].outcome


def test_digests_differ_between_profiles_and_what_is_visible_does_not() -> None:
    program = fuzz.from_text("access 0x00007f0000000000 write 0\n" + WP_READ_WRITE)
    v2, v18 = (fuzz.Executor(profile).run(program) for profile in ("uffd-wp-v2", "6.18"))
    assert v2.digest != v18.digest
    assert v2.visible == v18.visible
    # Without a table the series protects nothing, and user space sees that by a write.
    lost = fuzz.from_text(WP_READ_WRITE)
    assert fuzz.Executor("uffd-wp-v2").run(lost).visible != fuzz.Executor("6.18").run(lost).visible


@pytest.mark.parametrize("profile", ptwalk.profiles())
@pytest.mark.parametrize("setup", fuzz.SETUPS)
def test_a_run_depends_on_nothing_but_its_program(profile: str, setup: str) -> None:
    ex = fuzz.Executor(profile, setup)
    programs = random_programs(12)
    empty = ex.run(b"").digest
    first = [ex.run(program) for program in programs]
    for program, before in zip(reversed(programs), reversed(first), strict=True):
        after = ex.run(program)
        assert after[:2] == before[:2]
        assert after.coverage.tolist() == before.coverage.tolist()
    assert ex.run(b"").digest == empty


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_digests_are_equal_for_every_leaf_kernel(profile: str) -> None:
    programs = random_programs(60)
    results = [
        fuzz.Executor(profile, "mixed", kernel=kernel).run_batch(programs)
        for kernel in ptwalk.kernels()
    ]
    for result in results[1:]:
        assert (result.digest == results[0].digest).all()
        assert (result.visible == results[0].visible).all()


def test_digests_are_equal_in_another_process() -> None:
    program = random_programs(1, 40)[0]
    code = (
        "from ptwalk import fuzz;"
        f"print(fuzz.Executor('6.12', 'mixed', kernel='scalar').run({program!r}).digest)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == fuzz.Executor("6.12", "mixed").run(program).digest


def test_a_batch_gives_what_single_runs_give() -> None:
    ex = fuzz.Executor("6.18", "mixed")
    programs = [*random_programs(20), b"", b"\x04"]
    batch = ex.run_batch(programs)
    assert batch.coverage is not None
    for i, program in enumerate(programs):
        one = ex.run(program)
        assert (one.digest, one.visible) == (batch.digest[i], batch.visible[i])
        assert np.minimum(one.coverage, 255).tolist() == batch.coverage[i].tolist()
    rows = np.frombuffer(b"".join(programs[:20]), np.uint8).reshape(20, -1)
    again = ex.run_batch(rows, coverage=False)
    assert again.coverage is None
    assert again.digest.tolist() == batch.digest[:20].tolist()
    assert ex.run_batch([]).digest.shape == (0,)


def test_state_hash_is_of_the_state_alone() -> None:
    ex = fuzz.Executor("6.18", "shmem-16")
    start = ex.state_hash()
    ex.run(fuzz.from_text("access 0x00007f0000000000 read 0"))
    read = ex.state_hash()
    assert read != start
    ex.run(fuzz.from_text("access 0x00007f0000000000 read 0\nmunmap 0x00007f0000040000 4K"))
    assert ex.state_hash() == read
    ex.run(b"")
    assert ex.state_hash() == start
    # A page stored raw where nothing is mapped counts too.
    ex.run(fuzz.from_text("set_pte 0x00007f8000000000 ro -"))
    assert ex.state_hash() != start


def test_without_raw_operations_they_do_nothing() -> None:
    program = fuzz.from_text("set_pte 0x00007f0000000000 ro -")
    ex = fuzz.Executor("6.18", raw=False)
    start = ex.state_hash()
    assert ex.steps(program)[0].outcome == "nothing: raw operations are off"
    assert ex.state_hash() == start
    assert fuzz.Executor("6.18").steps(program)[0].outcome == ""


def test_coverage_counts_how_operations_ended() -> None:
    ex = fuzz.Executor("6.18", "empty")
    r = ex.run(fuzz.from_text("fork\nmunmap 0x00007f0000000000 0\nread"))
    taken = {name: int(n) for name, n in zip(ex.branches, r.coverage, strict=True) if n}
    assert taken["operation/fork: done"] == 1
    assert taken["operation/munmap: refused"] == 1
    assert taken["operation/read: nothing to act on"] == 1


REPLACED = """
userfaultfd pagefault_flag_wp|event_remap -
mmap 0x00007f0000000000 4K rw- locked anon 0
mmap 0x00007f0000010000 16K rw- - anon 0
register 0x00007f0000000000 4K missing|wp
register 0x00007f0000010000 16K missing|wp
copy 0x00007f0000011000 4K wp
mremap 0x00007f0000000000 4K 0x00007f0000010000 8K maymove|fixed
"""


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_a_message_may_be_unlike_an_armed_page_that_mremap_replaced(profile: str) -> None:
    executor = fuzz.Executor(profile, "empty", raw=False, judge="each")
    assert executor.run(fuzz.from_text(REPLACED)).violations == ()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidArgument, match="setup 'shmem' is not known"):
        fuzz.Executor("6.18", "shmem")
    with pytest.raises(InvalidArgument, match="profile '5\\.13' is not known"):
        fuzz.Executor("5.13")
    with pytest.raises(InvalidArgument, match="kernel 'mmx' cannot run here"):
        fuzz.Executor("6.18", kernel="mmx")
    ex = fuzz.Executor("6.18")
    with pytest.raises(InvalidArgument, match="program 'text' is not bytes-like"):
        ex.run_batch([b"", "text"])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="programs b'text' is no list"):
        ex.run_batch(b"text")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="C-contiguous uint8"):
        ex.run_batch(np.zeros((2, 8), np.uint16))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"profile": 618}, "profile 618 is not a name; use one of"),
        ({"setup": 3}, "setup 3 is not bytes-like; pass bytes"),
        ({"setup": None}, "setup None is not bytes-like"),
        ({"setup": [b""]}, "setup [b''] is not bytes-like"),
        ({"kernel": 3}, "kernel 3 is not a name; use one of"),
        ({"raw": "no"}, "raw 'no' is no bool; use True or False"),
        ({"config": ["PT_RECLAIM"]}, "config ['PT_RECLAIM'] is not a mapping"),
        ({"config": {"HUGE": True}}, "HUGE"),
        ({"levels": 3}, "levels 3 is not 4 or 5"),
        ({"max_tables": 0}, "max_tables 0 is not 1 to"),
        ({"max_tables": -1}, "max_tables"),
    ],
)
def test_what_an_executor_cannot_be_made_of_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        fuzz.Executor(**arguments)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_batch_may_be_an_array_of_operations_or_hold_any_programs() -> None:
    ex = fuzz.Executor("6.18", "shmem-16")
    rows = fuzz.standard_mix(3)
    expected = ex.run_batch([row.tobytes() for row in rows]).digest.tolist()
    assert ex.run_batch(rows.view(fuzz.OP_DTYPE)).digest.tolist() == expected
    each = [bytearray(rows[0]), rows[1], fuzz.decode(rows[2])]
    assert ex.run_batch(iter(each)).digest.tolist() == expected
    assert fuzz.Executor("6.18", fuzz.decode(rows[0])).setup == rows[0].tobytes()


def test_runs_start_from_a_checkpoint_until_it_is_left() -> None:
    ex = fuzz.Executor("6.18", "shmem-16")
    begin = fuzz.from_text("writeprotect 0x00007f0000000000 64K wp")
    store = fuzz.from_text("access 0x00007f0000002000 write 0")
    alone = ex.run(store).visible
    whole = ex.steps(begin + store)[-1].visible
    ex.run(begin)
    point = ex.checkpoint()
    for _ in range(3):
        assert [step.visible for step in ex.steps(store)] == [whole]
    ex.restore()
    assert ex.run(store).visible == alone
    for gone in (point, 99):
        with pytest.raises(InvalidArgument, match=f"checkpoint {gone} is none of this executor's"):
            ex.restore(gone)
    assert ex.run(store).visible == alone


def test_an_executor_takes_options_and_levels_of_a_machine() -> None:
    five = fuzz.Executor("6.18", "shmem-16", levels=5, config={"MEM_SOFT_DIRTY": True})
    assert (five.levels, five.config) == (5, {"MEM_SOFT_DIRTY": True})
    assert "levels=5" in repr(five)
    rows = fuzz.standard_mix(50)
    plain = fuzz.Executor("6.18", "shmem-16")
    assert (five.run_batch(rows).visible == plain.run_batch(rows).visible).all()
    assert (five.run_batch(rows).digest != plain.run_batch(rows).digest).all()
    assert not five.run_batch(rows).violations.any()


def test_an_executor_takes_a_limit_on_table_frames() -> None:
    few = fuzz.Executor("6.18", "shmem-16", max_tables=4)
    assert few.max_tables == 4
    assert "max_tables=4" in repr(few)
    assert fuzz.Executor("6.18").max_tables is None
    near, far = "access 0x00007f0000000000 write 0", "access 0x00007f8000000000 write 0"
    program = fuzz.from_text(f"mmap 0x00007f8000000000 4K rw- - anon 0\n{near}\n{far}")
    assert [step.visible for step in few.steps(program)][1:] == ["done", "done; ENOMEM"]
    assert few.run(program).violations == ()
    assert fuzz.Executor("6.18").steps(program)[2].visible == "done"


def test_markers_beside_what_moves_stay_what_they_were() -> None:
    """A whole table of markers is one run; its pages are known by it when the run breaks up."""
    ex = fuzz.Executor("6.18", "unpopulated-16", judge="each")
    place = "0x00007f0000000000"
    program = fuzz.from_text(f"""
        mremap {place} 64K {place} 2M -
        writeprotect {place} 2M wp
        mremap {place} 4K 0x00007f0000001000 4K maymove|fixed
    """)
    assert ex.run(program).violations == ()


def test_a_loaded_page_that_is_said_to_be_both_is_a_private_copy() -> None:
    place = "0x00007f0000000000"
    for profile in ("uffd-wp-v2", "6.18"):
        ex = fuzz.Executor(profile, "shmem-16")
        steps = ex.steps(
            fuzz.from_text(f"""
                load_pages {place} 64K protnone - anon|file|exclusive|dirty|elsewhere asked
                reclaim {place} 64K
                mmap {place} 64K -w- shared|populate file0 0
                mmap {place} 64K -w- shared|populate file0 8
            """)
        )
        assert steps[2].visible == f"address={int(place, 16):#x}"


def test_an_armed_writable_migration_entry_may_forget_it_with_write() -> None:
    """As kernels from 6.12 on do, which arm such entries by PAGEMAP_SCAN only."""
    place = "0x00007f0000000000"
    program = fuzz.from_text(f"""
        access {place} write 0
        migrate_start {place} 4K
        pagemap_scan {place} 4K - - - wp_matching 0
        mprotect {place} 4K ---
    """)
    for profile in ("6.12", "6.18"):
        ex = fuzz.Executor(profile, "async-16", judge="each")
        assert ex.run(program).violations == ()


def test_shared_memory_that_was_loaded_without_a_file_is_not_filled() -> None:
    place = "0x00007f0000000000"
    program = fuzz.from_text(f"""
        load_vma {place} 64K rw- shared anon 0
        userfaultfd - -
        register {place} 64K missing
        zeropage {place} 4K -
        copy {place} 4K -
    """)
    steps = fuzz.Executor("6.18", "empty").steps(program)
    assert ["EINVAL" in step.visible for step in steps] == [False, False, False, True, True]
