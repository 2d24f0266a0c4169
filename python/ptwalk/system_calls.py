"""The system calls of an AddressSpace: mmap to fork, and what touching memory does.

Part of `ptwalk.AddressSpace`. Each method models the system call of its name, checks in the
kernel's order and raises `KernelError` with the kernel's errno.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from .errors import InvalidArgument, KernelError
from .files import File
from .flags import Madv, Map, MmCp, Mremap, parse, parse_prot
from .ranges import RangesDone, packed
from .space import Space
from .uffd_features import feature_word, refused_features
from .userfaultfd import Userfaultfd
from .vma import Vma, part_of, vma_from_core

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ._core import AccessResult, ProtectResult


class SystemCalls(Space):
    """Methods that are system calls, and the accesses of a CPU."""

    def mmap(
        self,
        addr: int | None,
        length: int,
        prot: int | str,
        flags: int | str | None = None,
        file: File | None = None,
        offset: int = 0,
    ) -> Vma:
        """Map anonymous memory or a file.

        *Models* mm/mmap.c:do_mmap, mm/vma.c:mmap_region (v6.18); by profile v5.12 to v6.12.

        Parameters
        ----------
        addr : int or None
            Address in bytes; None lets the space pick, top down. Without MAP_FIXED it is a hint.
        length : int
            Bytes; rounded up to pages as the kernel does.
        prot : int or str
            PROT_* bits or letters such as "rw-".
        flags : int or str, optional
            MAP_* bits or names such as "private|anonymous|fixed"; by default private and anonymous
            without a file, required with one.
        file : File, optional
            What to map; None for anonymous memory.
        offset : int
            Where in the file the range starts, in bytes, page aligned.

        Returns
        -------
        Vma
            The range that was mapped. `vmas` shows what it was merged with.

        Raises
        ------
        KernelError
            EINVAL, EEXIST, ENOMEM, EACCES, EOVERFLOW as mmap(2); EBADF without file and
            MAP_ANONYMOUS.
        InvalidArgument
            For a file with MAP_ANONYMOUS or without `flags`, or a file of another machine.
        """
        if flags is None:
            if file is not None:
                raise InvalidArgument(
                    "mmap: flags is missing; with a file pass MAP_SHARED or MAP_PRIVATE"
                )
            flags = Map.PRIVATE | Map.ANONYMOUS
        word = parse(Map, flags, "flags")
        number = self._file_number(word, file)
        hint = 0 if addr is None else addr
        start, fields = self._core.mmap(hint, length, parse_prot(prot), word, number, offset)
        return part_of(vma_from_core(self.machine, fields), start, length)

    def _file_number(self, flags: int, file: File | None) -> int:
        """Return the number of `file` on this machine, -1 for anonymous memory."""
        if file is not None and not isinstance(file, File):
            raise InvalidArgument(f"file {file!r} is no file; pass a ShmemFile or RegularFile")
        anonymous = bool(flags & Map.ANONYMOUS)
        if file is None:
            if not anonymous:
                raise KernelError(
                    errno.EBADF, "mmap: neither a file nor MAP_ANONYMOUS; pass one of them"
                )
            return -1
        if anonymous:
            raise InvalidArgument(f"mmap: {file!r} together with MAP_ANONYMOUS; drop one of them")
        return file._attach(self.machine)

    def munmap(self, start: int, length: int) -> None:
        """Unmap a range; VMAs are split where it begins and ends.

        *Models* mm/vma.c:do_vmi_munmap (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes; the length is rounded up to pages.

        Raises
        ------
        KernelError
            EINVAL for a bad range, ENOMEM at the limit of VMAs.
        """
        self._core.munmap(start, length)

    def mprotect(
        self, start: int, length: int, prot: int | str, *, threads: int | None = None
    ) -> ProtectResult:
        """Change the protection of a range.

        *Models* mm/mprotect.c:do_mprotect_pkey, mprotect_fixup (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes; the length is rounded up to pages.
        prot : int or str
            PROT_* bits or letters such as "r--".
        threads : int, optional
            How many threads may work on it; default `Machine.threads`. Results do not depend on it.

        Returns
        -------
        ProtectResult
            What happened to the entries.

        Raises
        ------
        KernelError
            EINVAL, ENOMEM for a hole, EACCES; `done` is what was changed before it.
        """
        return self._core.mprotect(start, length, parse_prot(prot), threads)

    def mprotect_many(
        self,
        ranges: Iterable[tuple[int, int]] | npt.NDArray[np.integer[Any]],
        prot: int | str,
        *,
        threads: int | None = None,
    ) -> ProtectResult:
        """Change the protection of many ranges, each as one `mprotect` would, in order.

        *Models* mm/mprotect.c:do_mprotect_pkey (v6.18), once a range.

        Parameters
        ----------
        ranges : iterable of (int, int), or ndarray of integers, shape (n, 2)
            Start and length of each in bytes; lengths are rounded up to pages.
        prot : int or str
            PROT_* bits or letters such as "r--", for all of them.
        threads : int, optional
            How many threads may work on it; default `Machine.threads`. Results do not depend on it.

        Returns
        -------
        ProtectResult
            The sum of what happened; `flush` spans all flushes.

        Raises
        ------
        InvalidArgument
            For another dtype or shape, or negative numbers.
        KernelError
            As `mprotect`, for the first range that fails; `done` is a `ptwalk.ranges.RangesDone`.

        Notes
        -----
        The GIL is released.
        """
        try:
            return self._core.mprotect_many(packed(ranges), parse_prot(prot), threads)
        except KernelError as error:
            error.done = RangesDone(*error.done)
            raise

    def change_protection(
        self, start: int, end: int, newprot: int, cp_flags: int | str = 0
    ) -> ProtectResult:
        """Call the kernel's change_protection() on every VMA of a range.

        *Models* mm/mprotect.c:change_protection (v5.12 with the seed series, v6.1 to v6.18).

        Parameters
        ----------
        start, end : int
            Range in bytes, page aligned, half open; holes are skipped.
        newprot : int
            64-bit protection word, such as `Vma.page_prot`.
        cp_flags : int or str
            MM_CP_* bits or names such as "uffd_wp".

        Returns
        -------
        ProtectResult
            What happened to the entries.

        Raises
        ------
        InvalidArgument
            For an unaligned or backward range, or UFFD_WP together with UFFD_WP_RESOLVE.
        KernelError
            ENOMEM where a table cannot be allocated (from v6.4 on).
        """
        return self._core.change_protection(start, end, newprot, parse(MmCp, cp_flags, "cp_flags"))

    def madvise(
        self,
        start: int,
        length: int,
        advice: int | str,
        *,
        victims: Iterable[int] | None = None,
    ) -> None:
        """Give advice about a range.

        *Models* mm/madvise.c:do_madvise (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes; the length is rounded up to pages.
        advice : int or str
            MADV_* value or name such as "dontneed".
        victims : iterable of int, optional
            Addresses of the pages that MADV_PAGEOUT may take; by default all that it could.

        Raises
        ------
        KernelError
            EINVAL for a bad range or advice, ENOMEM for a hole.
        """
        pages = None if victims is None else list(victims)
        self._core.madvise(start, length, parse(Madv, advice, "advice"), pages)

    def mremap(
        self,
        old_addr: int,
        old_len: int,
        new_len: int,
        flags: int | str = 0,
        new_addr: int | None = None,
    ) -> Vma:
        """Grow, shrink or move a mapping.

        *Models* mm/mremap.c:do_mremap (v6.18).

        Parameters
        ----------
        old_addr, old_len : int
            The old range in bytes.
        new_len : int
            The new length in bytes.
        flags : int or str
            MREMAP_* bits or names such as "maymove|fixed".
        new_addr : int, optional
            Where to move it, with MREMAP_FIXED.

        Returns
        -------
        Vma
            The range where it lies now.

        Raises
        ------
        KernelError
            EINVAL, EFAULT, ENOMEM, EAGAIN as mremap(2).
        """
        word = parse(Mremap, flags, "flags")
        target = 0 if new_addr is None else new_addr
        start, fields = self._core.mremap(old_addr, old_len, new_len, word, target)
        return part_of(vma_from_core(self.machine, fields), start, new_len)

    def mlock(self, start: int, length: int) -> None:
        """Lock a range and make its pages present.

        *Models* mm/mlock.c:do_mlock (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes; rounded to whole pages.

        Raises
        ------
        KernelError
            ENOMEM for a hole, EINVAL for an overflow.
        """
        self._core.mlock(start, length)

    def munlock(self, start: int, length: int) -> None:
        """Unlock a range.

        *Models* mm/mlock.c:munlock (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes; rounded to whole pages.

        Raises
        ------
        KernelError
            ENOMEM for a hole, EINVAL for an overflow.
        """
        self._core.munlock(start, length)

    def fork(self) -> Self:
        """Return a copy-on-write copy of the address space, on the same machine.

        *Models* kernel/fork.c:dup_mmap, mm/memory.c:copy_page_range (v6.18).
        """
        return type(self)._from_core(self.machine, self._core.fork())

    def userfaultfd(self, features: int | str = 0, *, user_mode_only: bool = False) -> Userfaultfd:
        """Open a userfaultfd and agree on its features with UFFDIO_API.

        *Models* fs/userfaultfd.c:userfaultfd_api (v6.18).

        Parameters
        ----------
        features : int or str
            UFFD_FEATURE_* bits or names such as "wp_unpopulated|event_fork".
        user_mode_only : bool
            UFFD_USER_MODE_ONLY: faults of the kernel are not reported.

        Returns
        -------
        Userfaultfd
            It stays open until its `close`, like a descriptor.

        Raises
        ------
        KernelError
            EINVAL for a feature that the profile's kernel lacks; `done` is the open userfaultfd,
            whose other calls then fail as the kernel's would.
        """
        try:
            word = feature_word(self.machine, features)
            number = self._core.userfaultfd(word, user_mode_only)
        except KernelError as error:
            open_one = Userfaultfd(self, error.done)
            raise KernelError(
                errno.EINVAL, refused_features(self.machine, features), open_one
            ) from None
        return Userfaultfd(self, number)

    def access(self, addr: int, *, write: bool, thread: int = 0) -> AccessResult:
        """Load from or store to an address as the CPU does, with the faults that it takes.

        *Models* mm/memory.c:handle_mm_fault and what it calls (v6.18), and
        arch/x86/mm/fault.c:do_user_addr_fault.

        Parameters
        ----------
        addr : int
            Address in bytes.
        write : bool
            Whether it is a store.
        thread : int
            Which thread accesses; told to handlers that asked for THREAD_ID (`UffdMsg.ptid`).

        Returns
        -------
        AccessResult
            "blocked" where the kernel would sleep in handle_userfault(): the fault is pending,
            and the next access to its page is the retry.

        Raises
        ------
        InvalidArgument
            For an address that is no integer or lies outside user memory.
        """
        return self._core.access(addr, write, thread)

    def kernel_access(self, addr: int, *, write: bool) -> AccessResult:
        """Access an address from kernel mode, as read(2) and write(2) do with a user buffer.

        *Models* copy_from_user() and copy_to_user() with the faults that they take (v6.18).

        Parameters
        ----------
        addr : int
            Address in bytes.
        write : bool
            Whether the kernel stores to it, as read(2) does.

        Returns
        -------
        AccessResult
            "done" or "blocked", as `access`.

        Raises
        ------
        KernelError
            EFAULT where a store or load of the CPU would end in a signal.
        """
        return self._core.kernel_access(addr, write)

    def populate(self, start: int, length: int, *, write: bool, threads: int | None = None) -> int:
        """Make pages present as touching each of them would.

        *Models* mm/gup.c:populate_vma_page_range (v6.18), page by page.

        Parameters
        ----------
        start, length : int
            Range in bytes.
        write : bool
            Whether the touches are stores.
        threads : int, optional
            How many threads may work on it; so far one does, since frames are handed out in the
            order of addresses.

        Returns
        -------
        int
            Pages touched.

        Raises
        ------
        KernelError
            Where a page cannot be made present; `done` is the number of pages before it.
        """
        return self._core.populate(start, length, write, threads)
