// Hybrids: every rule of a profile by name, and kernels made of the rules of two.
#include "ptwalk/hybrid.hpp"

#include <doctest/doctest.h>

#include <set>

#include "space.hpp"

using namespace ptwalk;

namespace {

/// "A with every rule of B", by name.
std::string all_of(const Profile& base, const Profile& donor) {
  std::string names;
  for (const Rule& rule : rules()) names += (names.empty() ? "" : ", ") + std::string(rule.name);
  return base.name + " with " + names + " of " + donor.name;
}

}  // namespace

TEST_CASE("all rules of another kernel make that kernel: none is left out") {
  for (const Profile& base : profiles())
    for (const Profile& donor : profiles()) {
      const std::string name = all_of(base, donor);
      NamedProfile made = named_profile(name);
      REQUIRE_MESSAGE(made.profile, made.wrong);
      CHECK(made.profile->name == name);
      CHECK(made.profile->kernel == base.kernel);
      made.profile->name = donor.name;
      made.profile->kernel = donor.kernel;
      CHECK(*made.profile == donor);
    }
}

TEST_CASE("a rule compares, takes and shows one field alone") {
  std::set<std::string_view> names;
  const Profile &a = *find_profile("uffd-wp-v2"), &b = *find_profile("6.18");
  for (const Rule& rule : rules()) {
    CAPTURE(rule.name);
    CHECK(names.insert(rule.name).second);
    CHECK(rule.same(a, a));
    CHECK(rule.same(a, b) == (rule.value(a) == rule.value(b)));
    Profile taken = a;
    rule.take(taken, b);
    CHECK(rule.same(taken, b));
    for (const Rule& other : rules())
      if (&other != &rule) CHECK(other.same(taken, a));
  }
  CHECK(find_rule("populate")->value(a) == "pmd_only");
  CHECK(find_rule("wp_file_feature")->value(b) == "0x1000");
  CHECK(find_rule("PT_RECLAIM")->value(b) == "yes");
  CHECK(find_rule("name") == nullptr);
}

TEST_CASE("a hybrid behaves as its rules say") {
  const NamedProfile made = named_profile("uffd-wp-v2 with populate of 6.18");
  REQUIRE_MESSAGE(made.profile, made.wrong);
  CHECK(made.profile->populate == Populate::every_level);
  CHECK(made.profile->make_marker(PTE_MARKER_UFFD_WP) == 0x4);
  // Swap types are numbered by the rules that decide them.
  const NamedProfile typed =
      named_profile("uffd-wp-v2 with marker_format of 6.18 with DEVICE_PRIVATE of 6.1");
  REQUIRE_MESSAGE(typed.profile, typed.wrong);
  CHECK(typed.profile->swp_type_of(SwpKind::pte_marker) == 31);
  CHECK(typed.profile->swp_type_of(SwpKind::migration_write) == 30);
}

TEST_CASE("names that make no kernel say what is wrong") {
  const std::pair<const char*, const char*> rows[] = {
      {"6.19", "profile '6.19' is not known; use one of 5.12, "},
      {"6.19 with populate of 6.18", "profile '6.19' is not known"},
      {"6.1 with populate of 6.19", "profile '6.19' is not known"},
      {"6.1 with populate", "ends with a kernel, not 'populate'"},
      {"6.1 with colour of 6.18", "rule 'colour' is not known"},
      {"5.12 with marker_vmas of 6.1", "VMAs take markers that do not exist"},
      {"6.1 with marker_mask of 5.12", "no UFFD_WP bit"},
      {"uffd-wp-v2 with marker_mask of 6.18", "the special pte has no bits"},
      {"6.1 with saved_dirty_bit of 6.18", "DEVMAP and SAVED_DIRTY are the same bit"},
      {"5.12 with anon_exclusive of 6.1", "no migration entry"},
  };
  for (const auto& [name, wrong] : rows) {
    CAPTURE(name);
    const NamedProfile made = named_profile(name);
    CHECK_FALSE(made.profile);
    CHECK_MESSAGE(made.wrong.find(wrong) != std::string::npos, made.wrong);
  }
}
