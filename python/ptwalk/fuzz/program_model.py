"""Does the operations of random programs on ptwalk, with answers as `program_kernel` gives them."""

from __future__ import annotations

from typing import Any

from ..address_space import AddressSpace
from ..errors import KernelError
from ..files import File, RegularFile, ShmemFile
from ..machine import Machine
from ..pagemap import PAGE_SIZE
from ..userfaultfd import Userfaultfd
from .program_kernel import FILE_PAGES, FILLS, IOCTLS

Ranges = list[tuple[int, int]]


class Modelled:
    """ptwalk's side.

    Parameters
    ----------
    ranges : list of (int, int)
        Start address and pages of what is looked at.
    profile : str
        Which kernel.
    """

    def __init__(self, ranges: Ranges, profile: str = "6.18") -> None:
        self.machine = Machine(profile)
        self.spaces = {0: AddressSpace(machine=self.machine)}
        self._uffds: dict[int, tuple[int, Userfaultfd]] = {}  # with the process of each
        self._ranges = ranges
        self._files: dict[str, File] = {}

    def _file(self, name: str) -> File:
        if name not in self._files:
            self._make_file(name, "shmem", FILE_PAGES * PAGE_SIZE)
        return self._files[name]

    def _make_file(self, name: str, kind: str, size: int) -> None:
        make = RegularFile if kind == "regular" else ShmemFile
        self._files[name] = make(size, machine=self.machine, writable=kind != "readonly")

    def _use_file(self, name: str, file: str, *args: int) -> None:
        getattr(self._file(file), name.removesuffix("_file"))(*args)

    def _ioctl(self, which: int, name: str, *args: int) -> Any:
        call = getattr(self._uffds[which][1], name)
        if name in FILLS or name == "writeprotect":
            done = call(*args[:-1], mode=args[-1])
            return done if name in FILLS else None
        return call(*args)

    def _exit(self, process: int) -> None:
        self._uffds = {nr: owned for nr, owned in self._uffds.items() if owned[0] != process}
        del self.spaces[process]

    def _act(self, process: int, name: str, *args: Any) -> Any:
        """Do what has a process only."""
        mm = self.spaces[process]
        match name, args:
            case "mmap", (start, length, prot, flags, file, offset):
                backing = None if file is None else self._file(file)
                return mm.mmap(start, length, prot, flags, backing, offset).start
            case "mremap", _:
                return mm.mremap(*args).start
            case (("access" | "kernel_access"), (address, write)):
                mm.kernel_access(address, write=write)
            case "access_many", (accesses,):
                return [self._failure(mm, *access) for access in accesses]
            case "fork", (child,):
                self.spaces[child] = mm.fork()
            case "scan", (start, length, flags, masks, limits):
                names = "inverted", "mask", "anyof", "returned", "max_pages", "vec_len"
                words = dict(zip(names, [*masks, *limits], strict=True))
                found = mm.pagemap_scan(start, length, flags=flags, **words)
                return [[[int(word) for word in row] for row in found.ranges], found.walk_end]
            case _:
                getattr(mm, name)(*args)
        return None

    @staticmethod
    def _failure(mm: AddressSpace, address: int, write: bool) -> int:
        """Access a byte; return errno."""
        try:
            mm.kernel_access(address, write=write)
        except KernelError as error:
            return error.errno or 0
        return 0

    def _perform(self, process: int, uffd: int, name: str, *args: Any) -> Any:
        if name in IOCTLS or name == "close":
            return self._ioctl(uffd, name, *args)
        if name in ("truncate", "write", "read_file", "punch_hole"):
            return self._use_file(name, *args)
        if name == "make_file":
            return self._make_file(*args)
        if name == "exit":
            return self._exit(process)
        if name == "userfaultfd":
            made = self.spaces[process].userfaultfd(*args, user_mode_only=True)
            self._uffds[uffd] = process, made
            return None
        return self._act(process, name, *args)

    def ask(self, process: int, uffd: int, name: str, *args: Any) -> list[Any]:
        """Do one operation; return errno, value and what the ranges look like then."""
        failed, value = 0, None
        try:
            value = self._perform(process, uffd, name, *args)
        except KernelError as error:
            failed = error.errno or 0
            if name in FILLS:
                value = 0 if error.done is None else error.done  # the ioctl's word as it was
        return [failed, value, *self.state()]

    def state(self) -> list[Any]:
        """Return VMAs and upper bits of pagemap of all processes, KiB of page tables of the first.

        Page tables of a fork are not all its program's.
        """
        spaces = [mm for _, mm in sorted(self.spaces.items())]
        vmas = [
            [
                [vma.start, vma.end, vma.permissions, vma.offset, int(vma.vm_flags)]
                for vma in mm.vmas
            ]
            for mm in spaces
        ]
        words = [
            [
                int(word) >> 55
                for start, pages in self._ranges
                for word in mm.pagemap(start, pages * PAGE_SIZE)
            ]
            for mm in spaces
        ]
        return [vmas, words, 4 * spaces[0].stats.tables_modelled]
