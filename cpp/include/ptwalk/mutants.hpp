// Planted bugs, to judge the judges: each is one wrong line of the rules, chosen by name in a build
// with PTWALK_MUTANTS and absent from any other. Has no kernel counterpart.
#pragma once

#include <span>
#include <string_view>

#include "ptwalk/types.hpp"

namespace ptwalk {

/// X(name, what is wrong).
#define PTWALK_MUTANTS_LIST(X)                                                                \
  X(populate_missing, "wr-protect does not populate above the PTE level")                     \
  X(populate_at_pmd_only, "wr-protect populates below an existing PMD table only")            \
  X(pmd_end_left_out, "the last entry below a PMD entry is not changed")                      \
  X(present_counted_twice, "a present entry counts as two pages")                             \
  X(skipped_not_counted, "none entries that stay are not counted as skipped")                 \
  X(shared_written_in_place, "a shared table is not copied before a store")                   \
  X(shared_not_accounted, "what becomes of a shared table is not counted")                    \
  X(shared_though_last_differs, "a table is shared though its last entry differs")            \
  X(marker_in_anonymous, "none entries of anonymous memory get markers unasked")              \
  X(marker_not_in_files, "none entries of file mappings get no marker")                       \
  X(marker_not_dropped, "resolve leaves markers")                                             \
  X(every_marker_dropped, "resolve drops poison and guard markers too")                       \
  X(swap_not_armed, "wr-protect passes swap entries by")                                      \
  X(swap_not_resolved, "resolve passes swap entries by")                                      \
  X(rw_left_on, "wr-protect leaves RW")                                                       \
  X(uffd_left_on, "resolve leaves UFFD_WP in present entries")                                \
  X(uffd_lost_by_mprotect, "mprotect takes UFFD_WP away")                                     \
  X(upgrade_of_armed, "an armed entry is made writable without a fault")                      \
  X(upgrade_of_shared, "a page that is not exclusive is made writable without a fault")       \
  X(dirty_lost, "a change of protection takes D away")                                        \
  X(pfn_not_inverted, "PROT_NONE does not invert the frame")                                  \
  X(lane_left_out, "a vector kernel leaves one entry in eight alone")                         \
  X(lane_flush_lost, "a vector kernel does not report flushes")                               \
  X(zap_keeps_slot, "a zapped swap entry keeps its slot")                                     \
  X(zap_keeps_mapping, "a zapped page keeps its map count")                                   \
  X(zap_takes_marker, "MADV_DONTNEED leaves no marker for an armed file page")                \
  X(zap_takes_copies, "a hole in a file takes private copies too")                            \
  X(unmap_keeps_markers, "munmap leaves markers behind")                                      \
  X(fork_loses_swap_arm, "fork takes SWP_UFFD_WP away where the child is registered")         \
  X(fork_keeps_uffd, "a child that is not registered keeps UFFD_WP")                          \
  X(fork_leaves_rw, "fork leaves the parent's private pages writable")                        \
  X(fork_leaves_exclusive, "fork leaves AnonExclusive")                                       \
  X(fault_forgets_marker, "a page that comes in through a marker is not armed")               \
  X(fault_ignores_uffd, "a store to an armed page is not reported")                           \
  X(stale_marker_stays, "a marker that outlived its registration is not cleared")             \
  X(reuse_of_shared, "a page with other mappings is reused instead of copied")                \
  X(swapin_forgets_arm, "a page swapped in is not armed")                                     \
  X(reclaim_forgets_arm, "the swap entry of an armed page is not armed")                      \
  X(reclaim_forgets_marker, "reclaim of an armed file page leaves no marker")                 \
  X(migration_gives_rw, "an armed page comes back from migration writable")                   \
  X(mremap_keeps_uffd, "mremap keeps UFFD_WP without EVENT_REMAP")                            \
  X(mremap_leaves_one, "mremap leaves the last entry of a table behind")                      \
  X(split_forgets_offset, "the upper part of a split VMA keeps the file offset of the lower") \
  X(merge_across_uffds, "VMAs of different userfaultfds are merged")                          \
  X(writenotify_forgotten, "vm_page_prot of a wr-protected shared VMA has RW")                \
  X(unregister_keeps_bits, "unregister leaves UFFD_WP and markers")                           \
  X(resolve_wakes_nobody, "resolve wakes no waiter")                                          \
  X(message_without_wp, "the message of a wr-protect fault lacks its WP flag")                \
  X(copy_forgets_wp, "UFFDIO_COPY with WP leaves the page unarmed")                           \
  X(move_keeps_index, "UFFDIO_MOVE leaves the page's index")                                  \
  X(changing_ignored, "ioctls do not wait until event messages are read")

enum class Mutant : u8 {
  none,
#define PTWALK_MUTANT_NAME(name, text) name,
  PTWALK_MUTANTS_LIST(PTWALK_MUTANT_NAME)
#undef PTWALK_MUTANT_NAME
};

struct MutantInfo {
  std::string_view name;
  std::string_view text;
};

/// All of them; none in a build without.
std::span<const MutantInfo> mutants();
/// The one that is active, "" for none; at first what the environment variable PTWALK_MUTANT says.
std::string_view active_mutant();
/// Makes one active in the whole process, or none with "". Throws std::invalid_argument for a name
/// that there is not.
void choose_mutant(std::string_view name);

#if defined(PTWALK_MUTANTS)
/// Whether this build has any: what follows from the rules must then not be kept.
inline constexpr bool MUTANTS_PLANTED = true;
/// Whether this bug is planted.
bool planted(Mutant mutant);
#else
inline constexpr bool MUTANTS_PLANTED = false;
constexpr bool planted(Mutant) { return false; }
#endif

}  // namespace ptwalk
