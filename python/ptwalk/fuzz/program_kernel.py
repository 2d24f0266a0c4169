"""Does the operations of random programs on the running kernel.

The other side of `running`, in a process of its own, so that page tables
change by the operations alone. It reads one JSON list per line, [operation, arguments...], and
answers with errno, value and what the ranges look like then. Pages are touched by read(2) and
write(2), which fail where a load or store would raise a signal. Its arguments are the first address
of programs and the end of what they can reach, where nothing else lies.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

PAGE = 4096
FILE_PAGES = 40  # of a file that no operation has made
SOURCE = 1024 * PAGE  # what is copied: as much as an operation can ask for
USER_MODE_ONLY = 1
IOCTLS = {
    "register": (0xC020AA00, 3, 3),
    "unregister": (0x8010AA01, 2, None),
    "wake": (0x8010AA02, 2, None),
    "writeprotect": (0xC018AA06, 3, None),
    "copy": (0xC028AA03, 4, 4),
    "zeropage": (0xC020AA04, 3, 3),
    "continue_": (0xC020AA07, 3, 3),
    "poison": (0xC020AA08, 3, 3),
    "move": (0xC028AA05, 4, 4),
}  # request, words that go in, the word that comes out
FILLS = {"copy", "zeropage", "continue_", "poison", "move"}
PAGEMAP_SCAN = 0xC0606610
FLAGS = {
    "rd": 0x1, "wr": 0x2, "ex": 0x4, "sh": 0x8, "mr": 0x10, "mw": 0x20, "me": 0x40, "ms": 0x80,
    "um": 0x200, "gu": 0x800, "uw": 0x1000, "lo": 0x2000, "dc": 0x20000, "ac": 0x100000,
    "nr": 0x200000, "wf": 0x2000000, "hg": 0x20000000, "nh": 0x40000000, "ui": 0x2000000000,
}  # fmt: skip


class Kernel:
    """The running kernel, asked by this process.

    Parameters
    ----------
    first, last : int
        Where programs lie, and where they end at the latest.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.elsewhere: list[tuple[int, int]] = []  # where the kernel chose the address
        self.libc = libc = ctypes.CDLL(None, use_errno=True)
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for name, *types in (
            ("mmap", pointer, size, number, number, number, ctypes.c_long),
            ("munmap", pointer, size),
            ("mprotect", pointer, size, number),
            ("madvise", pointer, size, number),
            ("mlock", pointer, size),
            ("munlock", pointer, size),
            ("mremap", pointer, size, size, number, pointer),
            ("read", number, pointer, size),
            ("write", number, pointer, size),
            ("pwrite", number, pointer, size, ctypes.c_long),
            ("fallocate", number, number, ctypes.c_long, ctypes.c_long),
        ):
            function = getattr(libc, name)
            function.argtypes, function.restype = types, ctypes.c_long
        # What is freed stays in the heap, so that its page tables stay as they are.
        libc.mallopt(-3, 1 << 30)
        libc.mallopt(-1, 1 << 30)
        self.zero = os.open("/dev/zero", os.O_RDWR)
        self.pipe = os.pipe()
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        self.source = libc.mmap(None, SOURCE, 3, 0x8022, -1, 0)  # populated
        self.uffd = -1
        self.files: dict[str, int] = {}

    def start(self, features: int) -> None:
        """Forget the last program and open a userfaultfd for the next."""
        for start, length in [(self.first, self.last - self.first), *self.elsewhere]:
            self.libc.munmap(start, length)
        self.elsewhere = []
        for fd in [*self.files.values(), self.uffd]:
            if fd >= 0:
                os.close(fd)
        self.files = {}
        self.uffd = self.libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK | USER_MODE_ONLY)
        fcntl.ioctl(self.uffd, 0xC018AA3F, bytearray(struct.pack("3Q", 0xAA, features, 0)))

    def perform(self, name: str, *args: Any) -> Any:
        """Do one operation; its value, or OSError."""
        if name in IOCTLS:
            return self.ioctl(name, list(args))
        if name in ("file", "truncate", "write", "punch_hole"):
            return self.change_file(name, *args)
        if name in ("scan", "access", "kernel_access", "close", "mmap"):
            return getattr(self, name)(*args)
        value = self.check(getattr(self.libc, name)(*args))
        return self.note(value, args[2]) if name == "mremap" else None

    def note(self, start: int, length: int) -> int:
        """Take note of a mapping that lies elsewhere; return its address."""
        if not self.first <= start < self.last:
            self.elsewhere.append((start, length))
        return start

    def mmap(self, start: int, length: int, prot: int, flags: int, *what: Any) -> int:
        """Map memory or a file; return its address."""
        file, offset = what
        fd = -1 if file is None else self.file(file)
        value = self.check(self.libc.mmap(start, length, prot, flags, fd, offset))
        return self.note(value, length)

    def access(self, address: int, write: bool) -> int | None:
        """Let the kernel load or store a byte for a system call."""
        done = self.check(
            self.libc.read(self.zero, address, 1)
            if write
            else self.libc.write(self.pipe[1], address, 1)
        )
        if not write:
            os.read(self.pipe[0], 1)
        return None if done == 1 else done

    kernel_access = access

    def close(self) -> None:
        """Close the userfaultfd; again is no error."""
        if self.uffd >= 0:
            os.close(self.uffd)
        self.uffd = -1

    @staticmethod
    def check(value: int) -> int:
        """Return what a call returned, or raise its errno."""
        if value == -1:
            raise OSError(ctypes.get_errno(), "")
        return value

    def file(self, name: str, size: int = FILE_PAGES * PAGE) -> int:
        """Return the memfd of that name, of that size when it is new."""
        if name not in self.files:
            self.files[name] = os.memfd_create("program")
            os.ftruncate(self.files[name], size)
        return self.files[name]

    def change_file(self, name: str, file: str, *args: int) -> None:
        """Make a file, write to it, truncate it or punch a hole in it."""
        fd = self.file(file, *args) if name == "file" else self.file(file)
        if name == "truncate":
            os.ftruncate(fd, *args)
        elif name == "write":
            self.check(self.libc.pwrite(fd, self.source, args[1], args[0]))
        elif name == "punch_hole":
            self.check(self.libc.fallocate(fd, 3, *args))

    def ioctl(self, name: str, args: list[int]) -> int | None:
        """Call an ioctl of the userfaultfd; return the word that comes out, if any."""
        request, given, out = IOCTLS[name]
        if name == "copy":
            args.insert(1, self.source)
        words = bytearray(struct.pack(f"{given + 1}q", *args, 0))
        try:
            if self.uffd < 0:  # fcntl would raise ValueError
                raise OSError(errno.EBADF, "")
            fcntl.ioctl(self.uffd, request, words, True)
        except OSError as error:
            # What a fill has done is in the same word, whether it failed or not.
            done = struct.unpack_from("q", words, 8 * (out or 0))[0]
            error.filename = done if name in FILLS else None
            raise
        return None if out is None else struct.unpack_from("q", words, 8 * out)[0]

    def scan(self, start: int, length: int, flags: int, masks: list[int], limits: list[int]) -> Any:
        """Call PAGEMAP_SCAN; return the ranges and walk_end."""
        inverted, mask, anyof, returned = masks
        max_pages, vec_len = limits
        vec = (ctypes.c_uint64 * (3 * vec_len))()
        words = [96, flags, start, start + length, 0, ctypes.addressof(vec), vec_len, max_pages]
        arg = bytearray(struct.pack("12Q", *words, inverted, mask, anyof, returned))
        found = fcntl.ioctl(self.pagemap, PAGEMAP_SCAN, arg, True)
        walk_end = struct.unpack("12Q", arg)[4]
        return [[list(vec[3 * i : 3 * i + 3]) for i in range(found)], walk_end]

    def state(self, ranges: list[tuple[int, int]]) -> list[Any]:
        """VMAs, bits 55 to 63 of the pagemap words of `ranges`, and VmPTE in KiB."""
        words: list[int] = []
        for start, pages in ranges:
            data = os.pread(self.pagemap, 8 * pages, start // PAGE * 8)
            words += [word >> 55 for word in struct.unpack(f"{pages}Q", data)]
        status = Path("/proc/self/status").read_text()
        return [self.vmas(), words, int(status.split("VmPTE:")[1].split()[0])]

    def vmas(self) -> list[list[Any]]:
        """Return the VMAs in smaps: range, permissions, offset, VmFlags."""
        found, vma = [], None
        for line in Path("/proc/self/smaps").read_bytes().decode().splitlines():
            words = line.split()
            if words[0] == "VmFlags:" and vma:
                # An unknown flag must not look like none.
                found.append([*vma, sum(FLAGS.get(flag, 1 << 63) for flag in words[1:])])
            elif not words[0].endswith(":"):
                start, end = (int(word, 16) for word in words[0].split("-"))
                inside = self.first <= start < self.last
                vma = [start, end, words[1], int(words[2], 16)] if inside else None
        return found


def main() -> None:
    """Answer the lines of stdin."""
    kernel = Kernel(*map(int, sys.argv[1:]))
    for line in sys.stdin:
        name, *args = json.loads(line)
        failed, value = 0, None
        if name == "start":
            ranges = args[1]
            kernel.start(args[0])
            kernel.state(ranges)
        else:
            try:
                value = kernel.perform(name, *args)
            except OSError as error:
                failed, value = error.errno or 0, error.filename
        print(json.dumps([failed, value, *kernel.state(ranges)]), flush=True)


if __name__ == "__main__":
    main()
