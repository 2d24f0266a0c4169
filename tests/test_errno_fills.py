"""Every errno of the userfaultfd ioctls that fill pages, wake and move, by profile.

Models mm/userfaultfd.c:mfill_atomic and move_pages, v5.12 to v6.18; one row a rule.
"""

from __future__ import annotations

import errno

import pytest
from errno_scene import (
    ALL,
    ANON,
    HOLE,
    MAINLINE,
    MANY_VMAS,
    ONE_VMA,
    OTHER,
    PAGE,
    PRIVATE,
    SECOND,
    SHARED,
    Row,
    Scene,
    cases,
    check_row,
    marker,
    range_rows,
    registered,
    remove_unread,
)
from ptwalk import KernelError

FILLS = [
    *range_rows("copy", lambda s, at, n: s.uffd.copy(at, n)),
    *range_rows("zeropage", lambda s, at, n: s.uffd.zeropage(at, n)),
    *range_rows("wake", lambda s, at, n: s.uffd.wake(at, n)),
    Row("copy: unknown mode", errno.EINVAL, lambda s: s.uffd.copy(ANON, PAGE, mode=4)),
    Row("zeropage: no WP mode", errno.EINVAL, lambda s: s.uffd.zeropage(ANON, PAGE, mode=2)),
    Row("copy: no VMA", errno.ENOENT, lambda s: s.uffd.copy(HOLE, PAGE)),
    Row("copy: not registered", errno.ENOENT, lambda s: s.uffd.copy(SHARED, PAGE)),
    Row("copy: ends outside", errno.ENOENT, lambda s: s.uffd.copy(HOLE - PAGE, 2 * PAGE)),
    Row("copy: page is there", errno.EEXIST, lambda s: s.uffd.copy(ANON, PAGE)),
    Row("zeropage: page is there", errno.EEXIST, lambda s: s.uffd.zeropage(ANON, PAGE)),
    Row(
        "copy: WP into a VMA not registered for it",
        errno.EINVAL,
        lambda s: s.uffd.copy(PRIVATE, PAGE, wp=True),
        prepare=registered(PRIVATE, "missing"),
    ),
    Row(
        "copy: mapping changes, before the range",
        errno.EAGAIN,
        lambda s: s.uffd.copy(ANON + 1, PAGE),
        prepare=remove_unread,
        features="event_remove",
    ),
    Row(
        "copy: marker in private shmem",
        errno.EEXIST,
        lambda s: s.uffd.copy(PRIVATE, PAGE),
        ("uffd-wp-v2",),
        prepare=lambda s: (registered(PRIVATE, "wp|missing")(s), marker(PRIVATE)(s)),
    ),
    Row(
        "copy: marker in private shmem",
        0,
        lambda s: s.uffd.copy(PRIVATE, PAGE),
        MAINLINE,
        prepare=lambda s: (registered(PRIVATE, "wp|missing")(s), marker(PRIVATE)(s)),
    ),
    Row(
        "zeropage: marker",
        errno.EEXIST,
        lambda s: s.uffd.zeropage(ANON + PAGE, PAGE),
        prepare=marker(ANON + PAGE),
    ),
    Row(
        "continue: anonymous or before it was taught shmem",
        errno.EINVAL,
        lambda s: s.uffd.continue_(ANON, PAGE),
    ),
    Row(
        "continue: page not cached",
        errno.EFAULT,
        lambda s: s.uffd.continue_(SHARED + PAGE, PAGE),
        MAINLINE,
        prepare=registered(SHARED, "minor"),
    ),
    Row(
        "continue: WP mode before 6.4",
        errno.EINVAL,
        lambda s: s.uffd.continue_(SHARED, PAGE, wp=True),
        ("6.1",),
        prepare=registered(SHARED, "minor|wp"),
    ),
    Row("poison: not known", errno.EINVAL, lambda s: s.uffd.poison(ANON + PAGE, PAGE), ONE_VMA),
    Row("poison: page is there", errno.EEXIST, lambda s: s.uffd.poison(ANON, PAGE), MANY_VMAS),
    Row(
        "poison: marker",
        errno.EEXIST,
        lambda s: s.uffd.poison(ANON + PAGE, PAGE),
        MANY_VMAS,
        prepare=marker(ANON + PAGE),
    ),
]

MOVE_TO = ANON + 16 * PAGE
MOVE = [
    Row("move: not known", errno.EINVAL, lambda s: s.uffd.move(MOVE_TO, ANON, PAGE), ONE_VMA),
    *[
        Row(f"move: {name}", number, call, MANY_VMAS, prepare)
        for name, number, call, prepare in (
            (
                "unknown mode",
                errno.EINVAL,
                lambda s: s.uffd.move(MOVE_TO, ANON, PAGE, mode=4),
                None,
            ),
            ("src unaligned", errno.EINVAL, lambda s: s.uffd.move(MOVE_TO, ANON + 1, PAGE), None),
            ("dst unaligned", errno.EINVAL, lambda s: s.uffd.move(MOVE_TO + 1, ANON, PAGE), None),
            ("shared memory", errno.EINVAL, lambda s: s.uffd.move(MOVE_TO, SHARED, PAGE), None),
            ("read-only", errno.EINVAL, lambda s: s.uffd.move(SECOND, ANON, PAGE), None),
            ("dst of another", errno.EINVAL, lambda s: s.uffd.move(OTHER + PAGE, ANON, PAGE), None),
            ("page is there", errno.EEXIST, lambda s: s.uffd.move(ANON, OTHER, PAGE), None),
            (
                "marker is there",
                errno.EEXIST,
                lambda s: s.uffd.move(MOVE_TO, ANON, PAGE),
                marker(MOVE_TO),
            ),
            ("hole", errno.ENOENT, lambda s: s.uffd.move(MOVE_TO, ANON + PAGE, PAGE), None),
            (
                "hole allowed",
                0,
                lambda s: s.uffd.move(MOVE_TO, ANON + PAGE, PAGE, allow_src_holes=True),
                None,
            ),
            (
                "marker as source, holes allowed",
                errno.EFAULT,
                lambda s: s.uffd.move(MOVE_TO, ANON + PAGE, PAGE, allow_src_holes=True),
                marker(ANON + PAGE),
            ),
            (
                "page not exclusive",
                errno.EBUSY,
                lambda s: s.uffd.move(MOVE_TO, ANON, PAGE),
                lambda s: s.children.append(s.mm.fork()),
            ),
        )
    ],
]


@pytest.mark.parametrize(("profile", "row"), cases([*FILLS, *MOVE]))
def test_errno(profile: str, row: Row) -> None:
    check_row(profile, row)


@pytest.mark.parametrize("profile", ALL)
@pytest.mark.parametrize("fill", ["copy", "zeropage"])
def test_fill_stops_at_a_page_that_is_there(profile: str, fill: str) -> None:
    scene = Scene(profile)
    scene.mm.access(ANON + 3 * PAGE, write=True)
    with pytest.raises(KernelError, match="EAGAIN") as caught:
        getattr(scene.uffd, fill)(ANON + PAGE, 4 * PAGE)
    assert caught.value.done == 2 * PAGE
    assert scene.mm.count(ANON, 8 * PAGE) == {"present": 4, "none": 4}
