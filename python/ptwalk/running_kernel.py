"""The seed's steps on the running kernel: map, register, write-protect, touch, read pagemap.

The running kernel is the judge of the newest profile, so nothing is modelled here. A range of
4 KiB pages of this process is registered with a userfaultfd of its own; accesses are made by
helper threads, because one that meets a protected page sleeps until it is resolved. Only the WP
mode and the three backings of the seed are here; huge pages, fork and swap are left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from .errors import InvalidArgument, KernelError
from .pagemap import PAGE_SIZE, PM_UFFD_WP, U64, Pagemap

# include/uapi/linux/userfaultfd.h, v6.18; 323 is __NR_userfaultfd of x86-64.
NR_USERFAULTFD = 323
UFFD_USER_MODE_ONLY = 1
UFFD_API = 0xAA
UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_UNREGISTER = 0x8010AA01
UFFDIO_WAKE = 0x8010AA02
UFFDIO_WRITEPROTECT = 0xC018AA06
UFFDIO_REGISTER_MODE_WP = 2
UFFDIO_WRITEPROTECT_MODE_WP = 1
UFFD_EVENT_PAGEFAULT = 0x12

_MSG = struct.Struct("=B7xQQQ")  # struct uffd_msg: event, flags, address, ptid
_PROT_NONE, _PROT_RW = 0, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 16, 32, 0x4000
_MADV_NOHUGEPAGE = 15
_ALIGN = 2 << 20  # a PTE table of its own

_ADVICE = {
    errno.ENOSYS: "the kernel is built without CONFIG_USERFAULTFD",
    errno.EINVAL: "UFFD_USER_MODE_ONLY needs Linux 5.11",
    errno.EPERM: "a seccomp filter refuses it: run outside the container, or allow it there",
}

Backed = Literal["memfd", "shmem", "anon"]


@dataclass(frozen=True, slots=True)
class FaultMessage:
    """A page-fault message of the userfaultfd.

    Attributes
    ----------
    flags : int
        UFFD_PAGEFAULT_FLAG_ bits: 1 WRITE, 2 WP, 4 MINOR.
    address : int
        Address of the page, in bytes.
    """

    flags: int
    address: int

    def __repr__(self) -> str:
        return f"FaultMessage(flags={self.flags:#x}, address={self.address:#018x})"


@dataclass(frozen=True, slots=True)
class Touch:
    """What came of one access.

    Attributes
    ----------
    outcome : {"done", "blocked"}
        Blocked: the accessing thread sleeps in handle_userfault until the page is resolved.
    message : FaultMessage or None
        What the userfaultfd reported, for a blocked access.
    """

    outcome: Literal["done", "blocked"]
    message: FaultMessage | None = None


class KernelSpace:
    """Memory of this process under a userfaultfd of the running kernel.

    Use it in a ``with`` statement: leaving it unregisters and unmaps everything and ends the
    helper threads, whatever has happened before.

    Parameters
    ----------
    features : int
        UFFD_FEATURE_ bits to ask for.
    timeout : float
        Seconds after which an access that neither ends nor reports raises ETIMEDOUT.

    Attributes
    ----------
    features : int
        UFFD_FEATURE_ bits that the kernel offers.

    Raises
    ------
    KernelError
        userfaultfd(2), UFFDIO_API or the open of pagemap is refused; see `available`.
    """

    def __init__(self, features: int = 0, *, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self._libc = _libc()
        self._reserved: list[tuple[int, int]] = []
        self._mapped: list[tuple[int, int]] = []
        self._registered: list[tuple[int, int]] = []
        self._threads: list[threading.Thread] = []
        self._uffd = _userfaultfd(self._libc)
        try:
            arg = bytearray(struct.pack("3Q", UFFD_API, features, 0))
            _ioctl(self._uffd, UFFDIO_API, arg, f"UFFDIO_API: features {features:#x}")
            self.features: int = struct.unpack("3Q", arg)[1]
            self._pagemap = _pagemap()
        except BaseException:
            os.close(self._uffd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mmap(self, length: int, backing: Backed = "memfd") -> int:
        """Map readable and writable memory at an address that the kernel picks, 2 MiB aligned.

        Parameters
        ----------
        length : int
            Bytes, page aligned.
        backing : {"memfd", "shmem", "anon"}
            A shared memfd, shared anonymous memory, or private anonymous memory.

        Returns
        -------
        int
            Start address, in bytes. Nothing is mapped right before and after, and MADV_NOHUGEPAGE
            keeps the entries at 4 KiB.

        Raises
        ------
        InvalidArgument
            A length that is not aligned or not positive, or an unknown backing.
        KernelError
            The kernel refuses one of the system calls.
        """
        if length <= 0 or length % PAGE_SIZE:
            raise InvalidArgument(f"length {length:#x} is not a positive multiple of {PAGE_SIZE}")
        if backing not in ("memfd", "shmem", "anon"):
            raise InvalidArgument(f"backing {backing!r} is unknown; use memfd, shmem or anon")
        # The reservation stays around the mapping, so that no neighbour merges with it.
        size = length + 2 * _ALIGN
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
        reserved = self._mmap(0, size, _PROT_NONE, flags, -1)
        self._reserved.append((reserved, size))
        start = (reserved + _ALIGN) & -_ALIGN
        fd = -1
        try:
            if backing == "memfd":
                fd = os.memfd_create("ptwalk", os.MFD_CLOEXEC)
                os.ftruncate(fd, length)
            flags = _MAP_PRIVATE if backing == "anon" else _MAP_SHARED
            flags |= _MAP_FIXED | (0 if backing == "memfd" else _MAP_ANONYMOUS)
            self._mmap(start, length, _PROT_RW, flags, fd)
        except OSError as e:
            if isinstance(e, KernelError):
                raise
            raise KernelError(e.errno or 0, f"memfd of {length:#x} bytes: {e.strerror}") from None
        finally:
            if fd >= 0:
                os.close(fd)
        # EINVAL where the kernel is built without huge pages, which is as good.
        self._libc.madvise(start, length, _MADV_NOHUGEPAGE)
        self._mapped.append((start, length))
        return start

    def register(self, start: int, length: int) -> int:
        """UFFDIO_REGISTER in WP mode; return the mask of ioctls the range allows."""
        arg = bytearray(struct.pack("4Q", start, length, UFFDIO_REGISTER_MODE_WP, 0))
        _ioctl(self._uffd, UFFDIO_REGISTER, arg, f"UFFDIO_REGISTER: {_range(start, length)}")
        self._registered.append((start, length))
        ioctls: int = struct.unpack("4Q", arg)[3]
        return ioctls

    def unregister(self, start: int, length: int) -> None:
        """UFFDIO_UNREGISTER: resolves the range; who sleeps on it sleeps on until `wake`."""
        arg = bytearray(struct.pack("2Q", start, length))
        _ioctl(self._uffd, UFFDIO_UNREGISTER, arg, f"UFFDIO_UNREGISTER: {_range(start, length)}")

    def wake(self, start: int, length: int) -> None:
        """UFFDIO_WAKE: wake who sleeps on a range, to meet its entries anew."""
        arg = bytearray(struct.pack("2Q", start, length))
        _ioctl(self._uffd, UFFDIO_WAKE, arg, f"UFFDIO_WAKE: {_range(start, length)}")

    def writeprotect(self, start: int, length: int, *, protect: bool = True) -> None:
        """UFFDIO_WRITEPROTECT: protect a range, or resolve it and wake who sleeps on it."""
        mode = UFFDIO_WRITEPROTECT_MODE_WP if protect else 0
        arg = bytearray(struct.pack("3Q", start, length, mode))
        text = f"UFFDIO_WRITEPROTECT: {_range(start, length)}, protect={protect}"
        _ioctl(self._uffd, UFFDIO_WRITEPROTECT, arg, text)

    def access(self, address: int, *, write: bool) -> Touch:
        """Read or write one byte, in a thread of its own, and see what comes of it.

        Parameters
        ----------
        address : int
            Inside a range that `mmap` has returned.
        write : bool
            Store a byte, or load one.

        Returns
        -------
        Touch
            "blocked" leaves the thread asleep; resolving the page lets it go on, and `settle`
            waits for that.

        Raises
        ------
        InvalidArgument
            The address is not in memory of this object.
        KernelError
            ETIMEDOUT: neither done nor reported within `timeout` seconds.
        """
        if not any(start <= address < start + length for start, length in self._mapped):
            raise InvalidArgument(f"address {address:#018x} is not mapped here; use mmap's result")
        thread = threading.Thread(target=self._touch, args=(address, write), daemon=True)
        thread.start()
        self._threads.append(thread)
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            thread.join(0.001)
            if not thread.is_alive():
                return Touch("done")
            for message in self._read():
                # A thread that was woken too early reports its page once more.
                if message.address // PAGE_SIZE == address // PAGE_SIZE:
                    return Touch("blocked", message)
        text = f"{'write to' if write else 'read of'} {address:#018x}: nothing in {self.timeout} s"
        raise KernelError(errno.ETIMEDOUT, text)

    def settle(self) -> None:
        """Wait until every access has ended; call it after resolving what they blocked on.

        Raises
        ------
        KernelError
            ETIMEDOUT: one still sleeps after `timeout` seconds.
        """
        end = time.monotonic() + self.timeout
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if self._threads:
            text = f"{len(self._threads)} accesses still sleep; resolve their pages first"
            raise KernelError(errno.ETIMEDOUT, text)

    def pagemap(self, start: int, length: int) -> U64:
        """Return the pagemap words of a range, one for each page, shape (length // 4096,)."""
        return self._pagemap.words(start, length)

    def close(self) -> None:
        """Unregister, close and unmap everything; idempotent.

        Raises
        ------
        KernelError
            ETIMEDOUT: an access still sleeps. Its memory stays mapped then.
        """
        if self._uffd < 0:
            return
        try:
            for start, length in self._registered:
                # Closing does both, but not while a forked child has the file open.
                self.unregister(start, length)
                self.wake(start, length)
        finally:
            os.close(self._uffd)
            self._uffd = -1
            self._pagemap.close()
        self.settle()
        for start, size in self._reserved:
            self._libc.munmap(start, size)

    def _mmap(self, start: int, length: int, prot: int, flags: int, fd: int) -> int:
        address: int = self._libc.mmap(start, length, prot, flags, fd, 0) or 0
        if address == 2**64 - 1:  # MAP_FAILED
            number = ctypes.get_errno()
            raise KernelError(number, f"mmap: {_range(start, length)}: {os.strerror(number)}")
        return address

    def _touch(self, address: int, write: bool) -> None:
        # libc, not ctypes: a thread that sleeps in a fault must not hold the GIL.
        if write:
            self._libc.memset(address, 1, 1)
        else:
            self._libc.memchr(address, 0, 1)

    def _read(self) -> Iterator[FaultMessage]:
        with contextlib.suppress(BlockingIOError):
            while True:
                event, flags, address, _ = _MSG.unpack(os.read(self._uffd, _MSG.size))
                if event == UFFD_EVENT_PAGEFAULT:
                    yield FaultMessage(flags, address)


def available() -> str | None:
    """Say why the running kernel cannot be asked, or None when it can.

    Returns
    -------
    str or None
        The system call, its errno and what to do about it, in one line.

    Notes
    -----
    Protects one page of a memfd for a moment and looks at its pagemap word.
    """
    system = platform.system(), platform.machine()
    if system != ("Linux", "x86_64"):
        return f"the running kernel is {' '.join(system)}; Linux x86_64 is needed"
    try:
        with KernelSpace() as space:
            if not space.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM:
                return f"Linux {platform.release()} does not write-protect shmem; 5.19 does"
            start = space.mmap(PAGE_SIZE)
            space.register(start, PAGE_SIZE)
            space.writeprotect(start, PAGE_SIZE)
            if not int(space.pagemap(start, PAGE_SIZE)[0]) & PM_UFFD_WP:
                return f"pagemap of Linux {platform.release()} does not show the uffd-wp bit"
    except KernelError as e:
        return str(e)
    return None


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, size, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, ctypes.c_int]
    libc.memset.argtypes = libc.memchr.argtypes = [pointer, ctypes.c_int, size]
    libc.memset.restype = libc.memchr.restype = pointer
    return libc


def _userfaultfd(libc: ctypes.CDLL) -> int:
    """Open a userfaultfd that handles user-mode faults only, which needs no privilege (5.11)."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY
    fd: int = libc.syscall(NR_USERFAULTFD, flags)
    if fd < 0:
        number = ctypes.get_errno()
        advice = _ADVICE.get(number, "see ERRORS in userfaultfd(2)")
        raise KernelError(number, f"userfaultfd: {os.strerror(number)}; {advice}")
    return fd


def _pagemap() -> Pagemap:
    try:
        return Pagemap.open()
    except OSError as e:
        advice = "/proc must be mounted and this process dumpable"
        raise KernelError(e.errno or 0, f"/proc/self/pagemap: {e.strerror}; {advice}") from None


def _ioctl(fd: int, request: int, arg: bytearray, text: str) -> None:
    try:
        fcntl.ioctl(fd, request, arg)
    except OSError as e:
        raise KernelError(e.errno or 0, f"{text}: {e.strerror}") from None


def _range(start: int, length: int) -> str:
    return f"start {start:#018x}, length {length:#x}"
