"""One profile against another: the first difference, what kind it is, and the rule that made it."""

from __future__ import annotations

import numpy as np
import ptwalk
import pytest
from ptwalk import InvalidArgument, fuzz
from ptwalk.fuzz.against import Against, kind_of
from ptwalk.fuzz.executor import Step
from ptwalk.fuzz.findings import Finding
from ptwalk.fuzz.judges import run_all
from ptwalk.fuzz.minimise import minimise
from ptwalk.fuzz.mutate import Programs, random_ops

V2, NEW, SETUP = "uffd-wp-v2", "6.18", "shmem-16"
PAGE = "0x00007f0000000000"


def judge(profile: str = V2, other: str = NEW, setup: str = SETUP) -> Against:
    return Against(lambda name: fuzz.Executor(name, setup, raw=False), profile, other, setup)


def some_programs(count: int) -> list[bytes]:
    rng, even = np.random.default_rng(1), np.full(len(fuzz.OPERATIONS), 1 / len(fuzz.OPERATIONS))
    return [random_ops(rng, (8,), even).tobytes() for _ in range(count)]


ABSENT_PUD = f"writeprotect {PAGE} 4K wp\naccess {PAGE} write 0"
HZ1 = f"""
access {PAGE} write 0
writeprotect {PAGE} 4K wp
mprotect {PAGE} 64K r--
mprotect {PAGE} 64K rw-
access {PAGE} write 0
"""
HZ3 = f"""
access {PAGE} write 0
writeprotect {PAGE} 4K wp
migrate_start {PAGE} 4K
migrate_finish 0
access {PAGE} write 0
"""


@pytest.mark.parametrize(
    ("text", "rule", "operation", "title"),
    [
        (ABSENT_PUD, "populate", "writeprotect", "wr-protect does not populate above the PMD"),
        (
            HZ1,
            "writenotify_uffd_wp",
            "mprotect",
            "mprotect gives RW back to an armed shared page (HZ1)",
        ),
        (HZ3, "writenotify_uffd_wp", "migrate_finish", "migration gives RW back"),
    ],
)
def test_hazards_of_v2_are_explained(text: str, rule: str, operation: str, title: str) -> None:
    against, program = judge(), fuzz.from_text(text)
    found = against(program + fuzz.from_text(f"munmap {PAGE} 4K"))
    assert found is not None
    assert found.program == program
    assert (found.kind, found.rules, found.operation) == ("lost write", (rule,), operation)
    assert found.title.startswith(f"lost write: {title}")
    assert against.same(found)(program)
    smallest = against(
        minimise(lambda p: (f := against(p)) is not None and f.key == found.key, program)
    )
    assert smallest is not None
    assert len(smallest.program) <= len(program)
    assert len(found.states) == 2
    assert "done" in found.states[0]
    assert "blocked" in found.states[1]


def test_equal_programs_are_no_finding() -> None:
    against = judge()
    for text in ("", f"access {PAGE} write 0", f"mprotect {PAGE} 4K r--"):
        assert against(fuzz.from_text(text)) is None


def test_what_user_space_does_not_see_is_no_finding() -> None:
    """VMAs that only one kernel merges: numa has a result more, which nobody is told."""
    against = judge(setup="anon-16")
    unseen = f"""
    mmap {PAGE} 8K r-- - anon 0
    mprotect {PAGE} 4K -w-
    mprotect {PAGE} 4K r--
    numa {PAGE} 8K
    """
    assert against(fuzz.from_text(unseen)) is None
    assert not against.same(Finding("against", "", "", b"", V2, "anon-16"))(fuzz.from_text(unseen))
    # Nor does it stand in for a rule of what is seen after it.
    guarded = "madvise 0x00007f0000004000 4K guard_install"
    plain, both = (against(fuzz.from_text(text)) for text in (guarded, unseen + guarded))
    assert plain is not None
    assert both is not None
    assert (both.kind, both.rules) == (plain.kind, plain.rules)


def test_states_always_show_the_difference() -> None:
    against, found = judge(setup="mixed"), 0
    for program in some_programs(300):
        if (each := against(program)) is not None:
            one, two = (state.split(maxsplit=1)[1] for state in each.states)
            assert one != two
            found += 1
    assert found > 20


def test_more_than_one_rule_where_one_is_not_enough() -> None:
    """A guard needs the mask and a marker that can hold it."""
    against = judge()
    found = against(fuzz.from_text(f"madvise {PAGE} 4K guard_install\naccess {PAGE} read 0"))
    assert found is not None
    assert "marker_mask" in found.rules
    assert len(found.rules) > 1
    visible = fuzz.Executor(NEW, SETUP, raw=False).run(found.program).visible
    assert against.explain(found.program) == found.rules
    for left_out in found.rules:
        rules = [rule for rule in found.rules if rule != left_out]
        try:
            hybrid = fuzz.Executor(ptwalk.hybrid(V2, NEW, rules), SETUP, raw=False)
        except InvalidArgument:
            continue
        assert hybrid.run(found.program).visible != visible


def test_what_was_never_named_comes_first() -> None:
    against = judge()
    refused = f"writeprotect {PAGE} 0 wp"
    texts = (ABSENT_PUD, HZ1, "", ABSENT_PUD, refused)
    programs = Programs.of([fuzz.from_text(text) for text in texts])
    against.run(programs)
    batch = run_all(fuzz.Executor(V2, SETUP, raw=False), programs)
    none = np.zeros(len(programs), np.bool_)
    ranks = against.suspects(programs, batch, none, frozenset()).tolist()
    assert ranks[0] > ranks[1] > ranks[3] > ranks[2] == 0  # the shortest of each rule
    named = ("writeprotect", "access", "mprotect")
    known = frozenset(f"against|lost write|populate|{name}" for name in named)
    ranks = against.suspects(programs, batch, none, known).tolist()
    assert ranks[1] > ranks[0] == ranks[3] == 1


def test_a_known_difference_does_not_hide_the_next() -> None:
    against = judge()
    both = fuzz.from_text(f"continue {PAGE} 4K wp\n{HZ1}")
    first = against(both)
    assert first is not None
    assert first.rules != ("writenotify_uffd_wp",)
    found = against.look(both, frozenset({first.key}))
    assert found is not None
    assert (found.kind, found.rules) == ("lost write", ("writenotify_uffd_wp",))


def test_profiles_with_the_same_rules_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="have the same rules"):
        judge(V2, V2)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("done", "blocked; pagefault WRITE WP 0x1000", "lost write"),
        ("done", "blocked; pagefault 0x1000", "lost message"),
        ("blocked; pagefault WRITE WP 0x1000", "done", "extra message"),
        ("done", "signal 7 code 2", "signal differs"),
        ("EINVAL", "", "errno differs"),
        ("ENOENT", "EINVAL", "errno differs"),
        ("blocked; pagefault 0x1000", "blocked; pagefault WP 0x1000", "message differs"),
        ("bytes=0x1000", "bytes=0x2000", "result differs"),
        ("", "pagefault WRITE 0x1000", "message differs"),
        ("remap 0x1000 to 0x2000 length 0x1000", "", "message differs"),
        ("start=0x1000; end=0x2000; walk_end=0x3000", "walk_end=0x3000", "result differs"),
        ("address=0x0; EINVAL", "address=0x0", "errno differs"),
        ("errno 95", "errno 1", "errno differs"),
        ("0x1000 done; 0x2000 done", "0x1000 done; 0x2000 blocked; pagefault WRITE", "lost write"),
    ],
)
def test_kinds_of_differences(one: str, other: str, kind: str) -> None:
    assert kind_of(Step("", "", one), Step("", "", other)) == kind


@pytest.mark.parametrize(
    ("pattern", "first", "second"),
    [
        ("read", "lost message", "lost message"),
        ("read_write", "lost message", "lost write"),
        ("write_read", "lost write", "lost message"),
        ("write_every_other", "lost write", "lost write"),
    ],
)
def test_what_is_lost_among_many_accesses(pattern: str, first: str, second: str) -> None:
    text = f"access_many {PAGE} 8K {pattern}"
    for kind, other in ((first, "0x1 blocked; 0x2 done"), (second, "0x1 done; 0x2 blocked")):
        assert kind_of(Step(text, "", "0x1 done; 0x2 done"), Step(text, "", other)) == kind
