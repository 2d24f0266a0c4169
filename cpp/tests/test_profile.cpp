// Profiles: numbers of the swap types, markers, SAVED_DIRTY and the modify masks, by kernel.
#include "ptwalk/profile.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace ptwalk;

namespace {

struct Types {
  const char* profile;
  bool memory_failure, device_private;
  int hwpoison, migration_read, read_exclusive, migration_write;
  int device_write, device_read, exclusive_write, exclusive_read, marker, swapin_error;
};

Profile configured(const char* name, bool memory_failure, bool device_private) {
  Profile p = *find_profile(name);
  REQUIRE(set_config(p, "MEMORY_FAILURE", memory_failure));
  REQUIRE(set_config(p, "DEVICE_PRIVATE", device_private));
  return p;
}

}  // namespace

TEST_CASE("special swap types are numbered from the top (include/linux/swap.h)") {
  const Types rows[] = {
      {"uffd-wp-v2", true, true, 27, 28, -1, 29, 30, 31, -1, -1, -1, -1},
      {"uffd-wp-v2", true, false, 29, 30, -1, 31, -1, -1, -1, -1, -1, -1},
      {"6.1", true, false, 26, 27, 28, 29, -1, -1, -1, -1, 30, 31},
      {"6.12", true, false, 27, 28, 29, 30, -1, -1, -1, -1, 31, -1},
      {"6.12", true, true, 23, 24, 25, 26, 27, 28, 29, 30, 31, -1},
      {"6.18", false, false, -1, 28, 29, 30, -1, -1, -1, -1, 31, -1},
      {"6.18", true, true, 24, 25, 26, 27, 28, 29, -1, 30, 31, -1},
  };
  for (const Types& row : rows) {
    CAPTURE(row.profile);
    const Profile p = configured(row.profile, row.memory_failure, row.device_private);
    CHECK(p.swp_type_of(SwpKind::swap) == 0);
    CHECK(p.swp_type_of(SwpKind::hwpoison) == row.hwpoison);
    CHECK(p.swp_type_of(SwpKind::migration_read) == row.migration_read);
    CHECK(p.swp_type_of(SwpKind::migration_read_exclusive) == row.read_exclusive);
    CHECK(p.swp_type_of(SwpKind::migration_write) == row.migration_write);
    CHECK(p.swp_type_of(SwpKind::device_private_write) == row.device_write);
    CHECK(p.swp_type_of(SwpKind::device_private_read) == row.device_read);
    CHECK(p.swp_type_of(SwpKind::device_exclusive_write) == row.exclusive_write);
    CHECK(p.swp_type_of(SwpKind::device_exclusive_read) == row.exclusive_read);
    CHECK(p.swp_type_of(SwpKind::pte_marker) == row.marker);
    CHECK(p.swp_type_of(SwpKind::swapin_error) == row.swapin_error);
  }
}

TEST_CASE("the marker's word, and how it is recognised") {
  const Profile& v2 = *find_profile("uffd-wp-v2");
  CHECK(v2.make_marker(PTE_MARKER_UFFD_WP) == 0x4);
  CHECK(v2.is_uffd_wp_marker(0x4));
  for (u64 word : {0x0ull, 0x6ull, 0x24ull, 0x44ull, 0x64ull}) CHECK_FALSE(v2.is_marker(word));
  CHECK_FALSE(find_profile("5.12")->is_marker(0x4));

  CHECK(find_profile("6.1")->make_marker(PTE_MARKER_UFFD_WP) == 0xf7fffffffffffc00);
  const Profile& p = *find_profile("6.18");
  CHECK(p.make_marker(PTE_MARKER_UFFD_WP) == 0xfffffffffffffc00);
  CHECK(p.make_marker(PTE_MARKER_GUARD) == 0xfffffffffffff600);
  // Flag bits do not hide it: recognised by type, never by equality.
  for (u64 word : {0xfffffffffffffc02ull, 0xfffffffffffffc04ull}) CHECK(p.is_uffd_wp_marker(word));
  CHECK(p.marker_bits(0xfffffffffffff604) == PTE_MARKER_GUARD);
  CHECK(p.marker_bits(0x8000000012345067) == 0);
  CHECK_FALSE(p.is_marker(0x4));
}

TEST_CASE("6.6 on: D hides in SAVED_DIRTY while RW is off (pte_wrprotect, pte_mkwrite)") {
  const Profile& p = *find_profile("6.18");
  CHECK(p.pte_wrprotect(0x8000000012345067) == 0x8400000012345025);
  CHECK(p.pte_mkwrite(0x8400000012345025) == 0x8000000012345067);
  CHECK(p.pte_mkdirty(0x8000000012345025) == 0x8400000012345025);
  CHECK(p.pte_mkdirty(0x8000000012345027) == 0x8000000012345067);
  CHECK(p.pte_mkclean(0x8400000012345065) == 0x8000000012345025);
  CHECK(p.pte_mkuffd_wp(0x8000000012345067) == 0x8400000012345425);
  CHECK(p.pte_dirty(0x8400000012345025));
  const Profile& old = *find_profile("6.1");
  CHECK(old.pte_wrprotect(0x8000000012345067) == 0x8000000012345065);
  CHECK(old.pte_mkdirty(0x8000000012345025) == 0x8000000012345865);  // MEM_SOFT_DIRTY
  CHECK_FALSE(old.pte_dirty(0x8400000012345025));                    // bit 58 is DEVMAP there
}

TEST_CASE("what pte_modify and pmd_modify keep") {
  CHECK(find_profile("uffd-wp-v2")->modify_mask(PTE_LEVEL) == 0x040ffffffffffe78);
  CHECK(find_profile("uffd-wp-v2")->modify_mask(PMD_LEVEL) == 0x040ffffffffffef8);
  CHECK(find_profile("6.12")->modify_mask(PTE_LEVEL) == 0x060ffffffffffef8);
  CHECK(find_profile("6.18")->modify_mask(PTE_LEVEL) == 0x040ffffffffffef8);
  // B01, B02: to PROT_NONE and back; A13 (HZ6): v5.12 loses PAT.
  const Profile& v2 = *find_profile("uffd-wp-v2");
  CHECK(v2.leaf_modify(0x8000000012345867, 0x120, PTE_LEVEL) == 0x000fffffedcba960);
  CHECK(v2.leaf_modify(0x000fffffedcba960, 0x8000000000000025, PTE_LEVEL) == 0x8000000012345865);
  CHECK(v2.leaf_modify(0x80000000123450a7, 0x25, PTE_LEVEL) == 0x12345025);
  const Profile& p = *find_profile("6.18");
  CHECK(p.leaf_modify(0x80000000123450a7, 0x25, PTE_LEVEL) == 0x123450a5);
  // RW to RW leaves a stray SAVED_DIRTY alone; RO to RW brings D back.
  CHECK(p.leaf_modify(0x8400000012345027, 0x8000000000000027, PTE_LEVEL) == 0x8400000012345027);
  CHECK(p.leaf_modify(0x8400000012345025, 0x8000000000000027, PTE_LEVEL) == 0x8000000012345067);
}

TEST_CASE("names, oldest first, and options by name") {
  std::vector<std::string_view> names;
  for (const Profile& p : profiles()) names.push_back(p.name);
  CHECK(names == std::vector<std::string_view>{"5.12", "uffd-wp-v2-11", "uffd-wp-v2", "6.1", "6.12",
                                               "6.18"});
  CHECK(find_profile("6.11") == nullptr);
  Profile p = *find_profile("6.18");
  bool value = true;
  for (std::string_view option : config_options()) {
    REQUIRE(set_config(p, option, true));
    REQUIRE(get_config(p, option, value));
    CHECK(value);
  }
  CHECK(p.soft_dirty_bit() == _PAGE_SOFT_DIRTY);
  CHECK_FALSE(set_config(p, "NUMA", true));
  CHECK_FALSE(get_config(p, "NUMA", value));
}
