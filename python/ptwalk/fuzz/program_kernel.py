"""Does the operations of random programs on the running kernel.

The other side of `running`, in a process of its own, so that page tables change by the operations
alone. It reads one JSON list per line, [process, userfaultfd, operation, arguments...], and answers
with errno, value and what the ranges look like then, in each process. It is process 0; the others
are forks, which it asks through pipes. Pages are touched by read(2) and write(2), which fail where
a load or store would raise a signal. Its arguments are the first address of programs and the end of
what they can reach, where nothing else lies.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

PAGE = 4096
FILE_PAGES = 40  # of a file that no operation has made
SOURCE = 1024 * PAGE  # what is copied: as much as an operation can ask for
USER_MODE_ONLY = 1
MOST_PROCESSES = 128  # of a setup and a program
PR_SET_THP_DISABLE = 41
PATIENCE = 60  # seconds
HEAP = 64 << 20  # bytes
TMPFS, RAMFS = 0x01021994, 0x858458F6
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
            ("pread", number, pointer, size, ctypes.c_long),
            ("pwrite", number, pointer, size, ctypes.c_long),
            ("fallocate", number, number, ctypes.c_long, ctypes.c_long),
        ):
            function = getattr(libc, name)
            function.argtypes, function.restype = types, ctypes.c_long
        # What is freed stays in the heap, which has its page tables from the start.
        libc.mallopt(-3, 1 << 30)
        libc.mallopt(-1, 1 << 30)
        libc.malloc.restype, libc.free.argtypes = pointer, (pointer,)
        heap = libc.malloc(HEAP)
        for offset in range(0, HEAP, 1 << 21):
            ctypes.memset(heap + offset, 0, 1)
        libc.free(heap)
        self.zero = os.open("/dev/zero", os.O_RDWR)
        self.pipe = os.pipe()
        libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # pages have 4 KiB
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        self.source = libc.mmap(None, SOURCE, 3, 0x8022, -1, 0)  # populated
        self.uffds: dict[int, int] = {}
        self.files: dict[str, int] = {}  # what is written to and truncated
        self.mapped: dict[str, int] = {}  # what is mapped, opened for reading only perhaps

    def start(self) -> None:
        """Forget the last program."""
        for start, length in [(self.first, self.last - self.first), *self.elsewhere]:
            self.libc.munmap(start, length)
        self.elsewhere = []
        self.close_uffds()
        for fd in {*self.files.values(), *self.mapped.values()}:
            os.close(fd)
        self.files, self.mapped = {}, {}

    def close_uffds(self) -> None:
        """Close all that are open."""
        for fd in self.uffds.values():
            if fd >= 0:
                os.close(fd)
        self.uffds = {}

    def begin(self) -> None:
        """Be a new process: the userfaultfds are the parent's."""
        self.close_uffds()
        os.close(self.pagemap)
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)

    def perform(self, uffd: int, name: str, *args: Any) -> Any:
        """Do one operation; its value, or OSError."""
        if name in IOCTLS:
            return self.ioctl(self.uffds.get(uffd, -1), name, list(args))
        if name in ("userfaultfd", "close"):
            return getattr(self, name)(uffd, *args)
        if name in ("truncate", "write", "read_file", "punch_hole"):
            return self.use_file(name, *args)
        if name in ("make_file", "scan", "access", "access_many", "mmap"):
            return getattr(self, name)(*args)
        if name == "kernel_access":
            return self.access(*args)
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

    def access_many(self, accesses: list[tuple[int, bool]]) -> list[int]:
        """Do accesses in a row; return errno of each."""
        failed = []
        for address, write in accesses:
            try:
                self.access(address, write)
                failed.append(0)
            except OSError as error:
                failed.append(error.errno or 0)
        return failed

    def userfaultfd(self, which: int, features: int) -> None:
        """Open a userfaultfd."""
        fd = self.libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK | USER_MODE_ONLY)
        self.uffds[which] = self.check(fd)
        fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("3Q", 0xAA, features, 0)))

    def close(self, which: int) -> None:
        """Close a userfaultfd; again is no error."""
        if self.uffds[which] >= 0:
            os.close(self.uffds[which])
        self.uffds[which] = -1

    @staticmethod
    def check(value: int) -> int:
        """Return what a call returned, or raise its errno."""
        if value == -1:
            raise OSError(ctypes.get_errno(), "")
        return value

    def file(self, name: str) -> int:
        """Return what is mapped of the file of that name, which may be new."""
        if name not in self.mapped:
            self.make_file(name, "shmem", FILE_PAGES * PAGE)
        return self.mapped[name]

    def make_file(self, name: str, kind: str, size: int) -> None:
        """Make a file."""
        if kind == "regular":
            fd, path = tempfile.mkstemp()
            Path(path).unlink()
        else:
            fd = os.memfd_create("program")
        self.files[name] = self.mapped[name] = fd
        os.ftruncate(fd, size)
        if kind == "readonly":
            self.mapped[name] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        elif kind == "regular":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # read(2) reads nothing ahead
            self.check(self.libc.fallocate(fd, 3, 0, PAGE))
            if self.is_tmpfs(fd):
                raise OSError(errno.EXDEV, "")

    def is_tmpfs(self, fd: int) -> bool:
        """Say whether a file is no regular one for what ptwalk models."""
        words = (ctypes.c_long * 16)()  # struct statfs
        self.check(self.libc.fstatfs(fd, words))
        return words[0] in (TMPFS, RAMFS)

    def use_file(self, name: str, file: str, *args: int) -> None:
        """Write to a file, read it, truncate it or punch a hole in it."""
        self.file(file)
        fd = self.files[file]
        if name == "truncate":
            os.ftruncate(fd, *args)
        elif name == "punch_hole":
            self.check(self.libc.fallocate(fd, 3, *args))
        else:
            call = self.libc.pwrite if name == "write" else self.libc.pread
            self.check(call(fd, self.source, args[1], args[0]))

    def ioctl(self, fd: int, name: str, args: list[int]) -> int | None:
        """Call an ioctl of a userfaultfd; return the word that comes out, if any."""
        request, given, out = IOCTLS[name]
        if name == "copy":
            args.insert(1, self.source)
        words = bytearray(struct.pack(f"{given + 1}Q", *args, 0))
        try:
            if fd < 0:  # fcntl would raise ValueError
                raise OSError(errno.EBADF, "")
            fcntl.ioctl(fd, request, words, True)
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
        end = (start + length) % (1 << 64)
        words = [96, flags, start, end, 0, ctypes.addressof(vec), vec_len, max_pages]
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


class Processes:
    """Process 0, which is this one, and its forks.

    Parameters
    ----------
    kernel : Kernel
        What does the operations, in each of them.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.me = kernel, 0
        self.ranges: list[tuple[int, int]] = []
        # All have all pipes: whoever forks, process 0 asks.
        self.questions = [os.pipe() for _ in range(MOST_PROCESSES)]
        self.answers = [os.pipe() for _ in range(MOST_PROCESSES)]
        self.living: dict[int, int] = {}  # process and pid of each fork

    def start(self, ranges: list[tuple[int, int]]) -> None:
        """Forget the last program."""
        for process in list(self.living):
            self.end(process)
        self.kernel.start()
        self.ranges = ranges

    def end(self, process: int) -> None:
        """Kill a fork and wait until its memory is gone."""
        pid = self.living.pop(process)
        watched = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([watched], [], [])
        os.close(watched)
        with contextlib.suppress(ChildProcessError):  # of a fork of a fork
            os.waitpid(pid, 0)

    def ask(self, process: int, *words: Any) -> Any:
        """Let a process do something; return its answer."""
        if process == self.me:
            return self.answer(*words)
        os.write(self.questions[process][1], json.dumps(words).encode() + b"\n")
        return self.listen(self.answers[process][0])

    def listen(self, pipe: int) -> Any:
        """Read one line of a pipe; a fork ends with process 0."""
        line = b""
        while not line.endswith(b"\n"):
            if self.me == 0 and not select.select([pipe], [], [], PATIENCE)[0]:
                raise TimeoutError("a fork does not answer")
            read = os.read(pipe, 1 << 16)
            if not read:
                os._exit(0)
            line += read
        return json.loads(line)

    def answer(self, uffd: int, name: str, *args: Any) -> Any:
        """Do one operation in this process, and return errno and value."""
        if name == "state":
            return self.kernel.state(self.ranges)
        try:
            if name != "fork":
                return 0, self.kernel.perform(uffd, name, *args)
            self.fork(*args)
            return 0, None
        except OSError as error:
            return error.errno or 0, error.filename

    def fork(self, child: int) -> None:
        """Fork; the child tells its pid, and answers from then on."""
        if os.fork():
            return
        try:
            self.kernel.begin()
            if self.me == 0:
                for _, ask in self.questions:
                    os.close(ask)
            self.me, said = child, os.getpid()
            while True:
                os.write(self.answers[child][1], json.dumps(said).encode() + b"\n")
                said = self.answer(*self.listen(self.questions[child][0]))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def perform(self, process: int, *words: Any) -> list[Any]:
        """Do one operation; return errno, value and what the ranges look like then."""
        name = words[1]
        if name == "exit":
            self.end(process)
            failed, value = 0, None
        else:
            failed, value = self.ask(process, *words)
        if name == "fork" and not failed:
            self.living[words[2]] = self.listen(self.answers[words[2]][0])
        # Page tables of a fork are not all its program's.
        *own, tables = self.kernel.state(self.ranges)
        states = [own, *(self.ask(process, 0, "state")[:-1] for process in sorted(self.living))]
        return [failed, value, *map(list, zip(*states, strict=True)), tables]


def main() -> None:
    """Answer the lines of stdin."""
    processes = Processes(Kernel(*map(int, sys.argv[1:])))
    for line in sys.stdin:
        words = json.loads(line)
        if words[0] == "start":
            processes.start(words[1])
            processes.kernel.state(words[1])
            words = [0, 0, "madvise", 0, 0, 0]  # which does nothing
        print(json.dumps(processes.perform(*words)), flush=True)


if __name__ == "__main__":
    main()
