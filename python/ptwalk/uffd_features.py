"""Names of userfaultfd features, by profile: which bit each has and which release brought it.

Models the feature bits of include/uapi/linux/userfaultfd.h (v5.12 to v6.18) and of the v2 series,
where WP_HUGETLBFS_SHMEM is bit 10, later MINOR_SHMEM's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core
from .flags import UffdFeature, parse

if TYPE_CHECKING:
    from .machine import Machine

_NO_KERNEL_HAS = 1 << 63  # stands for a name that has no bit in this kernel

RELEASES = {
    UffdFeature.MINOR_HUGETLBFS: "v5.13",
    UffdFeature.MINOR_SHMEM: "v5.14",
    UffdFeature.EXACT_ADDRESS: "v5.18",
    UffdFeature.WP_HUGETLBFS_SHMEM: "v5.19",
    UffdFeature.WP_UNPOPULATED: "v6.4",
    UffdFeature.POISON: "v6.6",
    UffdFeature.WP_ASYNC: "v6.7",
    UffdFeature.MOVE: "v6.8",
}


def _bits(machine: Machine) -> dict[UffdFeature, int]:
    """Return the bit of each feature that the machine's kernel has."""
    info = _core.profile_info(machine.profile, machine.config)
    have, wp_file = info["uffd_features"], info["wp_file_feature"]
    bits = {feature: int(feature) for feature in UffdFeature if feature & have & ~wp_file}
    if wp_file:
        bits[UffdFeature.WP_HUGETLBFS_SHMEM] = wp_file
    return bits


def feature_word(machine: Machine, features: int | str) -> int:
    """Return the word that UFFDIO_API gets for names or bits.

    Raises
    ------
    InvalidArgument
        For a name that no kernel has.
    """
    word = parse(UffdFeature, features, "features")
    if not isinstance(features, str):
        return word
    bits = _bits(machine)
    out = 0
    for feature in UffdFeature(word):
        out |= bits.get(feature, _NO_KERNEL_HAS)
    return out


def feature_names(machine: Machine, word: int) -> UffdFeature:
    """Return the features that a word of this kernel stands for."""
    found = UffdFeature(0)
    for feature, bit in _bits(machine).items():
        if word & bit:
            found |= feature
    return found


def refused_features(machine: Machine, features: int | str) -> str:
    """Say which features the kernel lacks, and which release has them."""
    have = _bits(machine)
    if isinstance(features, str):
        missing = [
            f for f in UffdFeature(parse(UffdFeature, features, "features")) if f not in have
        ]
        names = ", ".join(f"{feature.name}".lower() for feature in missing)
        since = max(RELEASES.get(feature, "v4.11") for feature in missing)
        return (
            f"UFFDIO_API: profile {machine.profile} lacks {names} (kernels since {since} have it); "
            "leave it out or use a later profile"
        )
    unknown = features & ~sum(have.values())
    return (
        f"UFFDIO_API: features {features:#x} hold {unknown:#x}, which profile {machine.profile} "
        f"lacks; it has {sum(have.values()):#x}"
    )
