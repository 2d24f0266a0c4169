"""ptwalk against the pure-Python model: every entry that a change of protection meets.

A program runs step by step on the public API. At each mprotect, wr-protect, resolve and NUMA hint
the entries before it go through the model of `leaf_model`, with the protection word and flags that
the model's own rules give, and must be those after it. What the model leaves out is left out here:
huge leaves, and where tables are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..address_space import AddressSpace
from ..vma import Vma
from . import leaf_model as lm
from .calls import ADDRESSES, WINDOWS, Done, World
from .corpus import Mask
from .executor import SETUPS
from .findings import Finding
from .judges import CHANGES, Ranks, has_any
from .leaf_model import PageFacts
from .mutate import Programs
from .program import decode, members
from .statements import InexpressibleError, Values, newprot_word, ranges_of, values_of
from .task import Batch

PAGE = 4096
_NONE, _READ, _NX = 0x120, 0x8000000000000025, 1 << 63
_OLD = ("5.12", "uffd-wp-v2-11", "uffd-wp-v2")  # before vma_wants_manual_pte_write_upgrade
_TABLE_WORD = (*_OLD, "6.1")  # UFFDIO_WRITEPROTECT takes the word of the flags
_PG_ANON, _PG_EXCLUSIVE, _PG_DIRTY, _PG_KSM = 2, 4, 8, 32  # of AddressSpace.pages
_VM_LOCKED = 0x2000
_WP_UNPOPULATED = 1 << 13


def protection_word(vm_flags: int) -> int:
    """Return the table word of VMA flags, mm/mmap.c:protection_map by xwr and shared."""
    if not vm_flags & 7:
        return _NONE
    word = _READ & ~_NX if vm_flags & lm.VM_EXEC else _READ
    return word | lm.RW if _written_by_all(vm_flags) else word


def _written_by_all(vm_flags: int) -> bool:
    return vm_flags & (lm.VM_WRITE | lm.VM_SHARED) == lm.VM_WRITE | lm.VM_SHARED


def wants_writenotify(profile: str, vm_flags: int, kind: str, page_prot: int) -> bool:
    """Tell whether a VMA wants to hear of writes, as mm/mmap.c:vma_wants_writenotify."""
    if not _written_by_all(vm_flags):
        return False
    if kind == "regular":  # page_mkwrite
        return True
    if page_prot != protection_word(vm_flags):
        return False
    if lm.resolve_config(profile, None)["MEM_SOFT_DIRTY"] and not vm_flags & lm.VM_SOFTDIRTY:
        return True
    return profile not in _OLD and bool(vm_flags & lm.VM_UFFD_WP)


def upgrades(profile: str, vm_flags: int, kind: str, page_prot: int) -> bool:
    """Tell whether a change may make entries writable without a fault.

    mm/mprotect.c:mprotect_fixup; since v6.1 mm/mprotect.c:vma_wants_manual_pte_write_upgrade.
    """
    if profile in _OLD or vm_flags & lm.VM_SHARED:
        return wants_writenotify(profile, vm_flags, kind, page_prot)
    return bool(vm_flags & lm.VM_WRITE)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the model asks about an address space: entries at all places, their pages, the VMAs."""

    words: list[int]
    levels: list[int]
    pages: list[Any]
    vmas: list[Vma]

    @classmethod
    def of(cls, mm: AddressSpace) -> Snapshot:
        """Take one."""
        words, levels, pages = (
            np.concatenate([read(start, length) for start, length in WINDOWS])
            for read in (mm.ptes, mm.levels, mm.pages)
        )
        return cls(words.tolist(), levels.tolist(), list(pages), mm.vmas)

    def vma(self, at: int) -> Vma | None:
        """Return the VMA that holds an address."""
        return next((vma for vma in self.vmas if vma.start <= at < vma.end), None)


@dataclass(frozen=True, slots=True)
class Request:
    """What change_protection is asked for in one VMA."""

    newprot: int
    cp_flags: int


def request(profile: str, name: str, values: Values, before: Vma, after: Vma) -> Request | None:
    """Return what an operation asks for in a VMA; None where it leaves entries alone."""
    flags, kind = int(after.vm_flags), after.kind
    if name == "numa":
        return Request(_NONE, lm.MM_CP_PROT_NUMA)
    if name in ("mprotect", "mprotect_many"):
        if before.vm_flags & 7 == after.vm_flags & 7:
            return None
        upgrade = upgrades(profile, flags, kind, before.page_prot)
        return Request(after.page_prot, lm.MM_CP_TRY_CHANGE_WRITABLE if upgrade else 0)
    protect = bool(values["mode"] & 1)
    if profile in _TABLE_WORD:
        word = protection_word(flags & ~lm.VM_WRITE if protect else flags)
        return Request(word, lm.MM_CP_UFFD_WP if protect else lm.MM_CP_UFFD_WP_RESOLVE)
    if protect:
        return Request(after.page_prot, lm.MM_CP_UFFD_WP)
    upgrade = upgrades(profile, flags, kind, after.page_prot)
    more = lm.MM_CP_TRY_CHANGE_WRITABLE if upgrade else 0
    return Request(after.page_prot, lm.MM_CP_UFFD_WP_RESOLVE | more)


def facts(vma: Vma, page: Any) -> PageFacts:
    """Return what the model knows of a page."""
    flags = int(page["flags"])
    return PageFacts(
        anon=bool(flags & _PG_ANON),
        exclusive=bool(flags & _PG_EXCLUSIVE),
        ksm=bool(flags & _PG_KSM),
        dirty_file=vma.kind == "regular" and not flags & _PG_ANON and bool(flags & _PG_DIRTY),
        on_target_node=not vma.vm_flags & lm.VM_SHARED,  # one user, one node
        mapcount=int(page["mapcount"]),
    )


class Model:
    """ptwalk against the model, on programs that reached something new and a few others.

    Parameters
    ----------
    profile, setup : str
        What programs run on.

    Attributes
    ----------
    skipped : str or None
        Why this judge looks at nothing.
    """

    name = "model"
    limit = 3

    def __init__(self, profile: str, setup: str) -> None:
        self._profile, self._setup = profile, setup
        self.skipped = None
        if profile not in lm.PROFILES:  # it is written kernel by kernel, not rule by rule
            self.skipped = f"the model has no {profile!r}, only {', '.join(lm.PROFILES)}"

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> Ranks:
        """Take programs that change protections."""
        if self.skipped:
            return np.zeros(len(programs), np.int64)
        return has_any(programs, CHANGES).astype(np.int64)

    def __call__(self, program: bytes) -> Finding | None:
        """Return the first entry that is not what the model says."""
        if self.skipped:
            return None
        world = World(self._profile)
        try:
            for _ in world.run(SETUPS[self._setup]):
                pass
            for i, op in enumerate(map(members, decode(program))):
                statement = world.statement(op)
                checked = statement.name in CHANGES and statement.space
                mm = world.names[statement.space] if checked else None
                before = Snapshot.of(mm) if mm else None
                done = world.perform(statement)
                if mm and before and not done.error:
                    wrong = self._compare(mm, done, values_of(op), before)
                    if wrong:
                        return self._finding(program[: 8 * (i + 1)], done, wrong)
        except InexpressibleError:
            pass
        return None

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge it; nothing known hides anything."""
        return self(program)

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for an entry that the model does not agree with, after the same operation."""

        def shows(program: bytes) -> bool:
            found = self(program)
            return found is not None and found.key == finding.key

        return shows

    def _compare(
        self, mm: AddressSpace, done: Done, values: Values, before: Snapshot
    ) -> tuple[str, ...]:
        """Return the first entry that is wrong: its address, before, ptwalk's and the model's."""
        after, name = Snapshot.of(mm), done.statement.name
        if name == "change_protection":
            values = {**values, "word": newprot_word(before.vmas, values)}
        ranges = ranges_of(values)
        rows = zip(ADDRESSES, before.words, after.words, before.levels, after.levels, strict=True)
        for i, (at, old, new, level_before, level_after) in enumerate(rows):
            expected, vma = {old}, None
            inside = any(start <= at < start + length for start, length in ranges)
            if inside and (vma := before.vma(at)):
                if level_after > 1 or vma.vm_flags & _VM_LOCKED:
                    continue  # huge or without a table; mlock populates what becomes writable
                expected = self._expected(
                    mm, name, values, vma, after.vma(at), old, before.pages[i]
                )
                if level_before > 1:
                    expected |= {0}
            if new not in expected:
                said = ", ".join(f"{word:#018x}" for word in sorted(expected))
                return f"{at:#x}", f"{old:#018x}", f"{new:#018x}", said
        return ()

    def _expected(
        self,
        mm: AddressSpace,
        name: str,
        values: Values,
        vma: Vma,
        later: Vma | None,
        old: int,
        page: Any,
    ) -> set[int]:
        if name == "change_protection":
            asked: Request | None = Request(values["word"], values["cp_flags"])
        else:
            asked = request(self._profile, name, values, vma, later or vma)
        if asked is None or (name == "numa" and not vma.vm_flags & 7):
            return {old}
        features = 0 if vma.uffd is None else mm._core.uffd_features(vma.uffd)
        pages = [facts(vma, page)]
        if lm.classify(self._profile, None, old) == "migration":
            # Nobody sees the page while it migrates; in a private file mapping it may be either.
            kinds = (True, False) if vma.kind != "anon" else (True,)
            pages = [PageFacts(anon=anon and not vma.vm_flags & lm.VM_SHARED) for anon in kinds]
        steps = [
            lm.leaf_step(
                self._profile,
                old,
                asked.newprot,
                asked.cp_flags,
                anon=vma.kind == "anon",
                vm_flags=int((later or vma).vm_flags),
                page=seen,
                wp_unpopulated=bool(features & _WP_UNPOPULATED),
            )
            for seen in pages
        ]
        return {word for word, _, _ in steps}

    def _finding(self, program: bytes, done: Done, wrong: tuple[str, ...]) -> Finding:
        at, old, new, said = wrong
        name = done.statement.name
        return Finding(
            judge=self.name,
            kind="entry differs from the model",
            title=f"{name} leaves another entry than the model of change_pte_range",
            program=program,
            profile=self._profile,
            setup=self._setup,
            operation=name,
            states=(f"{at} before  {old}", f"{at} ptwalk  {new}", f"{at} model   {said}"),
        )
