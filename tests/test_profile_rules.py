"""Rules by name, hybrids by name, and one sentence for everything that a kernel does by a rule."""

from __future__ import annotations

import ptwalk
import pytest
from ptwalk import InvalidArgument, profile_rules
from test_profiles_page import defaults

V2, NEW = "uffd-wp-v2", "6.18"
BASE, LENGTH = 0x7F0000000000, 2 << 20


def test_every_field_of_struct_profile_and_every_option_is_a_rule() -> None:
    options = ptwalk.Machine(NEW).config
    for profile in ptwalk.profiles():
        assert list(ptwalk.rules(profile)) == [*defaults(), *options]


def test_values_in_words() -> None:
    rules = ptwalk.rules(V2)
    assert rules["populate"] == "pmd_only"
    assert rules["wp_file_feature"] == "0x400"
    assert rules["wp_one_vma"] == "yes"
    assert rules["PT_RECLAIM"] == "no"


def test_every_rule_of_every_profile_has_a_sentence() -> None:
    for rule in ptwalk.rules(V2):
        said = {}
        for profile in ptwalk.profiles():
            value = ptwalk.rules(profile)[rule]
            text = profile_rules.sentence(rule, profile)
            assert text, (rule, profile)
            assert "{" not in text
            said[value] = text
        # Where kernels differ so do the sentences, but for a bit that only moved.
        if rule not in ("devmap_bit", "saved_dirty_bit"):
            assert len(set(said.values())) == len(said), rule


def test_differing_rules_turn_one_kernel_into_another() -> None:
    differing = profile_rules.differing(V2, NEW)
    assert "populate" in differing
    assert "migration_keeps_uffd" in differing
    assert "wp_splits_file_pmd" not in differing
    name = ptwalk.hybrid(V2, NEW, differing)
    assert profile_rules.differing(name, NEW) == ()
    assert profile_rules.differing(V2, V2) == ()
    assert ptwalk.hybrid(V2, NEW, ()) == V2


def test_a_hybrid_runs_and_decodes_by_its_name() -> None:
    name = ptwalk.hybrid(V2, NEW, ["populate"])
    assert name == "uffd-wp-v2 with populate of 6.18"
    pages = {}
    for profile in (V2, name):
        mm = ptwalk.AddressSpace(profile)
        assert mm.profile == profile
        mm.mmap(BASE, LENGTH, "rw-", "shared", ptwalk.ShmemFile(LENGTH))
        uffd = mm.userfaultfd()
        uffd.register(BASE, LENGTH, "wp")
        pages[profile] = uffd.writeprotect(BASE, LENGTH).pages
        kinds = mm.decode(mm.ptes(BASE, LENGTH))["kind"]
        assert (kinds == ptwalk.Kind.MARKER).all() == (profile == name)
        assert mm.validate() == []
    assert pages == {V2: 0, name: 512}
    assert ptwalk.explain(0x4, profile=name).endswith("marker: uffd-wp special pte")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ptwalk.rules("6.19"), "profile '6.19' is not known"),
        (lambda: ptwalk.hybrid(V2, "6.19", ["flush"]), "profile '6.19' is not known"),
        (lambda: ptwalk.hybrid(V2, NEW, ["colour"]), "rule 'colour' is not known"),
        (lambda: ptwalk.hybrid("5.12", NEW, ["marker_vmas"]), "contradicts itself: VMAs take"),
        (lambda: profile_rules.sentence("colour", V2), "rule 'colour' is not known"),
        (lambda: ptwalk.AddressSpace("6.1 with populate"), "ends with a kernel, not 'populate'"),
    ],
)
def test_what_is_no_kernel_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InvalidArgument, match=text):
        call()
