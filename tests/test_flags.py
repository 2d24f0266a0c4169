"""Flag words: values, and the strings that stand for them."""

from __future__ import annotations

import mmap

import ptwalk
import pytest
from ptwalk import flags


@pytest.mark.parametrize(
    "name",
    [name for name in ptwalk.__all__ if name.startswith(("PROT_", "MAP_", "MADV_"))],
)
def test_values_are_those_of_the_standard_library(name: str) -> None:
    theirs = getattr(mmap, name, None)
    assert theirs is None or getattr(ptwalk, name) == theirs


def test_standard_library_was_compared() -> None:
    assert mmap.MAP_PRIVATE == ptwalk.MAP_PRIVATE
    assert mmap.MADV_DONTNEED == ptwalk.MADV_DONTNEED


@pytest.mark.parametrize(
    ("prot", "word"),
    [("rw-", 3), ("r--", 1), ("---", 0), ("", 0), ("rwx", 7), ("w", 2), ("--x", 4), (5, 5)],
)
def test_prot(prot: int | str, word: int) -> None:
    assert flags.parse_prot(prot) == word


@pytest.mark.parametrize(
    ("names", "value", "word"),
    [
        (flags.Map, "private|anonymous|fixed", 0x32),
        (flags.Map, "shared", 1),
        (flags.Map, " shared | populate ", 0x8001),
        (flags.UffdFeature, "wp_unpopulated|event_fork", 1 << 13 | 1 << 1),
        (flags.UffdRegisterMode, "missing|wp", 3),
        (flags.MmCp, "uffd_wp", 4),
        (flags.Madv, "guard_install", 102),
        (flags.Vm, "uffd_minor", 1 << 37),
        (flags.Map, "", 0),
        (flags.Map, 0x22, 0x22),
    ],
)
def test_names(names: type[flags.Map], value: int | str, word: int) -> None:
    assert flags.parse(names, value, "flags") == word


@pytest.mark.parametrize("bad", ["privat", "PRIVATE", "private,anonymous", "map_private"])
def test_unknown_name(bad: str) -> None:
    with pytest.raises(ptwalk.InvalidArgument, match=r"flags '.*' is not known; use shared, priv"):
        flags.parse(flags.Map, bad, "flags")


def test_unknown_prot_letter() -> None:
    with pytest.raises(ptwalk.InvalidArgument, match="prot 'rwz' has the letter 'z'; use r, w, x"):
        flags.parse_prot("rwz")


def test_strings_and_words_do_the_same() -> None:
    by_word, by_name = ptwalk.AddressSpace("6.18"), ptwalk.AddressSpace("6.18")
    by_word.mmap(1 << 30, 8192, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    by_name.mmap(1 << 30, 8192, "r--", "private|anonymous")
    assert by_word.vmas == by_name.vmas
    assert by_name.vmas[0].prot == ptwalk.PROT_READ
    assert by_name.vmas[0].flags == ptwalk.MAP_PRIVATE | ptwalk.MAP_ANONYMOUS


def test_feature_that_the_profile_lacks() -> None:
    with pytest.raises(ptwalk.KernelError, match="EINVAL: UFFDIO_API") as caught:
        ptwalk.AddressSpace("5.12").userfaultfd("wp_async")
    uffd = caught.value.done
    assert isinstance(uffd, ptwalk.Userfaultfd)
    with pytest.raises(ptwalk.KernelError, match="EINVAL"):
        uffd.register(1 << 30, 4096, "wp")
