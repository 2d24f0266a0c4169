#include "ptwalk/fuzz/setups.hpp"

#include <algorithm>

#include "ptwalk/fuzz/fields.hpp"

namespace ptwalk::fuzz {
namespace {

using namespace field;

constexpr u16 READ = 1, RW = 3, WP = 2, MISSING = 1, MINOR = 4;
constexpr u8 ANON = 0, SHMEM = 1, REGULAR = 2;
constexpr u8 PMD_END = 160;       // the first place behind the first PMD entry
constexpr u8 AROUND_PMD = 152;    // 8 pages before the end of the first PMD entry
constexpr u8 SECOND_UFFD = 0x10;  // Op::mm

/// Operation numbers: rows of operations().
enum : u8 {
  ACCESS_MANY_OP = 1,
  MMAP_OP = 4,
  MPROTECT_OP = 6,
  FORK_OP = 9,
  RECLAIM_OP = 13,
  USERFAULTFD_OP = 16,
  REGISTER_OP = 18,
  WRITEPROTECT_OP = 20,
};

constexpr u16 mmap_arg(u16 prot, u64 flags) { return u16(prot | flags << 3); }

constexpr Op map(u8 place, u8 nr, u64 flags, u8 backing) {
  return {MMAP_OP, 0, place, nr, mmap_arg(RW, flags), 0, backing};
}
constexpr Op uffd(u16 features, u8 api = 0) { return {USERFAULTFD_OP, 0, 0, 0, features, 0, api}; }
constexpr Op watch(u8 place, u8 nr, u16 mode) { return {REGISTER_OP, 0, place, nr, mode, 0, 0}; }
constexpr Op touch(u8 place, u8 nr, u16 pattern) {
  return {ACCESS_MANY_OP, 0, place, nr, pattern, 0, 0};
}
constexpr Op reclaim(u8 place, u8 nr) { return {RECLAIM_OP, 0, place, nr, 0, 0, 0}; }
constexpr Op fork() { return {FORK_OP, 0, 0, 0, 0, 0, 0}; }

constexpr u16 EVENTS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;
constexpr u16 WP_UNPOPULATED = 1 << 13, WP_ASYNC = 1 << 15;

constexpr Op SHMEM_16[] = {map(0, 16, SHARED, SHMEM), uffd(0), watch(0, 16, WP)};
constexpr Op ANON_16[] = {map(0, 16, 0, ANON), uffd(0), watch(0, 16, WP)};
constexpr Op UNPOPULATED_16[] = {map(0, 16, 0, ANON), uffd(WP_UNPOPULATED), watch(0, 16, WP)};
constexpr Op PRIVATE_16[] = {map(0, 16, 0, SHMEM), uffd(0), watch(0, 16, WP)};
constexpr Op ASYNC_16[] = {map(0, 16, 0, ANON), uffd(WP_ASYNC), watch(0, 16, WP)};
constexpr Op MISSING_16[] = {map(0, 8, SHARED, SHMEM), map(8, 8, 0, ANON), uffd(0),
                             watch(0, 16, MISSING | WP),
                             watch(0, 8, MISSING | WP | MINOR)};  // some have no MINOR there
constexpr Op EVENTS_16[] = {map(0, 8, SHARED, SHMEM),
                            map(8, 8, 0, ANON),
                            uffd(EVENTS),
                            watch(0, 16, WP),
                            touch(0, 4, 1),
                            touch(8, 4, 1),
                            {WRITEPROTECT_OP, 0, 0, 16, 1, 0, 0},
                            reclaim(2, 2),
                            reclaim(10, 2)};
constexpr Op BOUNDARY[] = {map(AROUND_PMD, 16, SHARED, SHMEM), uffd(0), watch(AROUND_PMD, 16, WP)};
constexpr Op LARGE[] = {map(0, 192, SHARED, SHMEM), uffd(0), watch(0, 192, WP),
                        touch(PMD_END - 1, 2, 1)};
constexpr Op TWO_UFFDS[] = {
    map(0, 16, 0, ANON), {MPROTECT_OP, 0, 8, 8, READ, 0, 0},        uffd(0), uffd(0),
    watch(0, 8, WP),     {REGISTER_OP, SECOND_UFFD, 8, 8, WP, 0, 0}};
constexpr Op STALE_16[] = {map(0, 16, SHARED, SHMEM),
                           uffd(0),
                           watch(0, 16, WP),
                           {WRITEPROTECT_OP, 0, 0, 16, 1, 0, 0},
                           watch(0, 16, MISSING)};
constexpr Op MIXED[] = {map(0, 16, 0, ANON),    map(16, 16, SHARED, SHMEM),
                        map(32, 16, 0, SHMEM),  map(48, 16, SHARED, REGULAR),
                        map(64, 8, 0, REGULAR), touch(0, 12, 1),
                        touch(16, 8, 3),        touch(32, 8, 3),
                        touch(48, 8, 2),        touch(64, 4, 2),
                        reclaim(0, 4),          reclaim(18, 2),
                        reclaim(34, 2),         fork(),
                        uffd(WP_UNPOPULATED),   watch(0, 16, WP),
                        watch(16, 32, WP)};

constexpr Setup SETUPS[] = {
    {"empty", "nothing is mapped", {}},
    {"shmem-16", "16 pages of shared shmem, registered for wp", SHMEM_16},
    {"anon-16", "16 anonymous pages, registered for wp", ANON_16},
    {"unpopulated-16", "the same with WP_UNPOPULATED", UNPOPULATED_16},
    {"private-16", "16 pages of shmem mapped private, registered for wp", PRIVATE_16},
    {"async-16", "16 anonymous pages, registered for wp with WP_ASYNC", ASYNC_16},
    {"missing-16", "8 pages of shared shmem and 8 anonymous ones, registered for missing too",
     MISSING_16},
    {"events-16",
     "the same two, wr-protected, with fork, remap, remove and unmap events; pages in memory, in "
     "swap and absent",
     EVENTS_16},
    {"boundary", "8 pages of shared shmem on either side of a PMD entry's end, registered for wp",
     BOUNDARY},
    {"large",
     "1 GiB of shared shmem, registered for wp, a page on either side of a PMD entry's end", LARGE},
    {"two-uffds", "8 anonymous pages, and 8 read-only ones that another userfaultfd is told of",
     TWO_UFFDS},
    {"stale-16", "16 pages of shared shmem with markers that outlived their registration for wp",
     STALE_16},
    {"mixed", "five kinds of mappings with pages present and in swap, and a fork of all", MIXED},
};

}  // namespace

std::span<const Setup> setups() { return SETUPS; }

const Setup* find_setup(std::string_view name) {
  const auto found = std::find_if(std::begin(SETUPS), std::end(SETUPS),
                                  [&](const Setup& setup) { return setup.name == name; });
  return found == std::end(SETUPS) ? nullptr : found;
}

}  // namespace ptwalk::fuzz
