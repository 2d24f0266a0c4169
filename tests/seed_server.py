"""The scene of the seed patch's tests: one mapping, and the userfaultfd server that watches it.

The ioctl takes file-backed memory from patch 23 of the series on. For the trees before it
VM_UFFD_WP is set by hand and change_protection called itself, as the ioctl would.
"""

from __future__ import annotations

import ptwalk
import pytest
from ptwalk import AddressSpace, ProtectResult, RegularFile, ShmemFile, Userfaultfd

BEFORE, PATCHED, SERIES = "5.12", "uffd-wp-v2-11", "uffd-wp-v2"
BASE, PAGE, HUGE = 0x7F0000000000, 4096, 2 << 20
LENGTH, PAGES = 2 * HUGE, 1024
READ_WORD, WRITE_WORD = 0x8000000000000025, 0x8000000000000027
NONE, SPECIAL = 0x0, 0x4
HUGE_LEAF = 0x80000000400008E7
RW, UFFD_WP, SWP_UFFD_WP = 1 << 1, 1 << 10, 1 << 2
WRITE_WP = ptwalk.UFFD_PAGEFAULT_FLAG_WRITE | ptwalk.UFFD_PAGEFAULT_FLAG_WP

with_patch = pytest.mark.parametrize("profile", [PATCHED, SERIES])


class Server:
    """An address space with one mapping, and the userfaultfd server that watches it."""

    def __init__(self, profile: str, kind: str = "shmem") -> None:
        self.mm = AddressSpace(profile)
        self.file = RegularFile(LENGTH) if kind == "regular" else ShmemFile(LENGTH)
        if kind == "anon":
            self.mm.mmap(BASE, LENGTH, "rw-")
        else:
            sharing = "private" if kind == "shmem-private" else "shared"
            self.mm.mmap(BASE, LENGTH, "rw-", sharing, self.file)
        self.writable_word = WRITE_WORD if kind == "shmem" else READ_WORD
        self.uffd = self._watch(profile, kind)

    def _watch(self, profile: str, kind: str) -> Userfaultfd:
        uffd = self.mm.userfaultfd()
        self.by_ioctl = profile == SERIES and kind != "regular"
        if self.by_ioctl:
            uffd.register(BASE, LENGTH, "wp")
        elif kind != "regular":
            uffd.register(BASE, LENGTH, "missing")  # for the context only
        self.mm.set_vm_flags(BASE, LENGTH, add="uffd_wp", remove="uffd_missing")
        return uffd

    def protect(self, start: int = BASE, length: int = LENGTH) -> ProtectResult:
        if self.by_ioctl:
            return self.uffd.writeprotect(start, length)
        return self.mm.change_protection(start, start + length, READ_WORD, "uffd_wp")

    def unprotect(self, start: int = BASE, length: int = LENGTH) -> ProtectResult:
        if self.by_ioctl:
            return self.uffd.writeprotect(start, length, protect=False)
        return self.mm.change_protection(
            start, start + length, self.writable_word, "uffd_wp_resolve"
        )

    def cache(self) -> None:
        """Bring all of the file into the page cache, through another mapping."""
        other = AddressSpace(machine=self.mm.machine)
        other.mmap(BASE, LENGTH, "rw-", "shared", self.file)
        other.populate(BASE, LENGTH, write=True)

    def touch_tables(self) -> None:
        """Make the first page present, and with it the tables of the first 2 MiB."""
        self.mm.access(BASE, write=True)

    def entries(self, start: int = BASE, length: int = LENGTH) -> list[int]:
        words: list[int] = self.mm.ptes(start, length).tolist()
        return words


def one_pte(profile: str, kind: str, word: int) -> Server:
    """Return a mapping whose second entry is `word`."""
    server = Server(profile, kind)
    server.touch_tables()
    server.mm.set_pte(BASE + PAGE, word)
    return server


def change(server: Server, cp_flags: str | int) -> tuple[int, int]:
    """Change the second entry; return it and the pages counted."""
    result = server.mm.change_protection(BASE + PAGE, BASE + 2 * PAGE, READ_WORD, cp_flags)
    return server.mm.entry(BASE + PAGE), result.pages


def below_pud(profile: str, kind: str) -> Server:
    """Return a mapping that has a PMD table and nothing below it."""
    server = Server(profile, kind)
    for level in ("pgd", "pud"):
        server.mm.alloc_table(BASE, level)
    return server
