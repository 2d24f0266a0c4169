"""The C++ leaf step against the independent Python model of it, on arbitrary input.

Words, protection words, flags, VMAs, options and page facts are drawn; each entry of one call of
change_protection must be what ptwalk.fuzz.leaf_model says, and the counters add up to its steps.
Pages have facts where load_pages gives them some; the others are ordinary, as in the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import ptwalk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ptwalk import AddressSpace, RegularFile, ShmemFile
from ptwalk.fuzz import leaf_model as lm
from ptwalk.fuzz.leaf_model import PageFacts

BASE, PAGE, LENGTH = 0x7F0000000000, 4096, 2 << 20
FIRST_PFN, NR_PAGES = 0x180000, 6  # frames that get facts, far from those the machine picks
LOAD_ANON, LOAD_FILE, LOAD_EXCLUSIVE, LOAD_DIRTY, LOAD_SHARED = 1, 2, 4, 8, 32
VMA_KINDS = ("anon", "shmem", "regular", "dax")
READ_WORD = 0x8000000000000025
PROT_WORDS = [READ_WORD, READ_WORD | lm.RW, 0x25, 0x27, 0x120, 0xA800000000000025]
MAY_READ_EXEC = int(ptwalk.VM_MAYREAD | ptwalk.VM_MAYEXEC)


@dataclass(frozen=True)
class Request:
    """One call of change_protection and the VMA that it meets."""

    kind: str
    vm_flags: int
    newprot: int
    cp_flags: int
    wp_unpopulated: bool
    config: dict[str, bool]

    @property
    def shared(self) -> bool:
        return bool(self.vm_flags & lm.VM_SHARED)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    kind = draw(st.sampled_from(VMA_KINDS))
    flags = draw(st.integers(0, 7)) | lm.VM_MAYWRITE * draw(st.booleans())
    flags |= lm.VM_UFFD_WP * draw(st.booleans()) | lm.VM_SOFTDIRTY * draw(st.booleans())
    if kind == "dax" or (kind != "anon" and draw(st.booleans())):
        flags |= lm.VM_SHARED
    uffd = draw(st.sampled_from([0, lm.MM_CP_UFFD_WP, lm.MM_CP_UFFD_WP_RESOLVE]))
    word = st.sampled_from(PROT_WORDS) | st.integers(0, lm.WORD)
    return Request(
        kind=kind,
        vm_flags=flags,
        newprot=draw(word),
        cp_flags=uffd | draw(st.integers(0, 3)),
        wp_unpopulated=draw(st.booleans()),
        config={
            name: draw(st.booleans())
            for name in ("MEM_SOFT_DIRTY", "MEMORY_FAILURE", "DEVICE_PRIVATE")
        },
    )


def swap_words(types: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    offsets = st.integers(0, (1 << 50) - 1) | st.integers(0, 7)
    offsets |= st.integers(FIRST_PFN, FIRST_PFN + NR_PAGES - 1)
    flags = st.integers(0, 15).map(lambda bits: bits << 1 & 0xE)
    return st.builds(lambda t, o, f: lm.encode_swap(t, o) | f, types, offsets, flags)


def present_words() -> st.SearchStrategy[int]:
    """Present words, most of them of the frames that have facts."""
    pfns = st.integers(FIRST_PFN, FIRST_PFN + NR_PAGES - 1) | st.integers(0, (1 << 40) - 1)
    low = st.integers(0, 0xFFF).map(lambda bits: bits | 1)
    high = st.sampled_from([0, 1 << 63, 1 << 58, 1 << 57, 5 << 59])
    return st.builds(lambda pfn, lo, hi: pfn << 12 & lm.PFN_FIELD | lo | hi, pfns, low, high)


WORDS = st.lists(
    st.integers(0, lm.WORD)
    | present_words()
    | swap_words(st.integers(20, 31) | st.integers(0, 31))
    | st.sampled_from([0x0, 0x20, 0x60, 0x4, 0x6, 0x24, 0x120, 0x000FFFFFEDCBA960]),
    min_size=1,
    max_size=40,
)
# The facts that load_pages is told of each frame.
FACTS = st.lists(
    st.builds(
        lambda *facts: sum(facts),
        st.sampled_from([LOAD_ANON, LOAD_FILE]),
        st.sampled_from([0, LOAD_EXCLUSIVE]),
        st.sampled_from([0, LOAD_DIRTY]),
        st.sampled_from([0, LOAD_SHARED]),
    ),
    min_size=NR_PAGES,
    max_size=NR_PAGES,
)


def make_space(profile: str, request: Request) -> AddressSpace:
    mm = AddressSpace(profile, config=request.config)
    file = {"shmem": ShmemFile, "regular": RegularFile}.get(request.kind)
    backing = None if file is None else file(LENGTH)
    flags = request.vm_flags | MAY_READ_EXEC
    if request.kind == "anon" and profile in ("6.12", "6.18"):
        mm.mmap(BASE, LENGTH, "rw-")
        features = "wp_unpopulated" if request.wp_unpopulated else 0
        mm.userfaultfd(features).register(BASE, LENGTH, "wp")
        mm.set_vm_flags(BASE, LENGTH, add=flags, remove=~flags & lm.WORD)
    else:
        mm.load_vma(BASE, BASE + LENGTH, flags, kind=request.kind, file=backing)
    return mm


def load_facts(mm: AddressSpace, request: Request, facts: list[int]) -> dict[int, PageFacts]:
    """Map frames by the last pages of the VMA; return what the model shall know of each."""
    known: dict[int, PageFacts] = {}
    for i, load in enumerate(facts):
        word = np.array([(FIRST_PFN + i) << 12 | 0x25], np.uint64)
        mm.load_pages(BASE + LENGTH - (i + 1) * PAGE, word, np.array([load], np.uint8))
        anon = bool(load & LOAD_ANON)
        known[FIRST_PFN + i] = PageFacts(
            anon=anon,
            exclusive=anon and bool(load & LOAD_EXCLUSIVE),
            zone_device=request.kind == "dax",
            dirty_file=not anon and request.kind in ("regular", "dax") and bool(load & LOAD_DIRTY),
            on_target_node=not request.shared,  # one user, one node
            mapcount=2 if load & LOAD_SHARED else 1,
        )
    return known


def page_of(profile: str, request: Request, known: dict[int, PageFacts], word: int) -> PageFacts:
    """Return the facts of the page that an entry names."""
    if word & (lm.PRESENT | lm.PROTNONE):
        pfn = (word if word & lm.PRESENT else ~word) >> 12 & (1 << 40) - 1
    else:
        pfn = lm.swap_offset(word) & (1 << 40) - 1
    ordinary = PageFacts(anon=request.kind == "anon", zone_device=request.kind == "dax")
    return known.get(pfn, ordinary)


@pytest.mark.parametrize("profile", lm.PROFILES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests(), words=WORDS, facts=FACTS)
def test_leaf_step(profile: str, request: Request, words: list[int], facts: list[int]) -> None:
    mm = make_space(profile, request)
    end = BASE + len(words) * PAGE
    mm.set_ptes(BASE, np.array(words, np.uint64))
    known = load_facts(mm, request, facts)
    vm_flags = int(mm.vmas[0].vm_flags)
    steps = [
        lm.leaf_step(
            profile,
            word,
            request.newprot,
            request.cp_flags,
            anon=request.kind == "anon",
            vm_flags=vm_flags,
            page=page_of(profile, request, known, word),
            wp_unpopulated=request.wp_unpopulated and request.kind == "anon",
            config=request.config,
        )
        for word in words
    ]
    result = mm.change_protection(BASE, end, request.newprot, request.cp_flags)
    for word, (new, _, _), got in zip(
        words, steps, mm.ptes(BASE, end - BASE).tolist(), strict=True
    ):
        assert got == new, f"{word:#018x} became {got:#018x}, the model says {new:#018x}"
    assert result.pages == sum(pages for _, pages, _ in steps)
    counted: Counter[str] = Counter(counter for _, _, counter in steps if counter)
    fields = ("present", "swap", "none_to_marker", "marker_to_none", "none_skipped")
    assert {name: getattr(result, name) for name in fields} == {
        name: counted[name] for name in fields
    }


@pytest.mark.parametrize("profile", lm.PROFILES)
@settings(max_examples=100, deadline=None)
@given(words=WORDS)
def test_kinds(profile: str, words: list[int]) -> None:
    """The class of every word, by decode and by count."""
    mm = AddressSpace(profile)
    mm.load_vma(BASE, BASE + LENGTH, ptwalk.VM_READ | MAY_READ_EXEC, kind="shmem")
    mm.set_ptes(BASE, np.array(words, np.uint64))
    model = [lm.classify(profile, None, word) for word in words]
    decoded = mm.decode(mm.ptes(BASE, len(words) * PAGE))["kind"]
    assert [ptwalk.Kind(kind).name.lower() for kind in decoded] == model
    assert mm.count(BASE, len(words) * PAGE) == Counter(model)
