// The account of changes of protection, added up.
#include <algorithm>

#include "ptwalk/protect.hpp"

namespace ptwalk {

void ProtectResult::gather_flush(u64 start, u64 end) {
  flush = flush.empty() ? Range{start, end}
                        : Range{std::min(flush.start, start), std::max(flush.end, end)};
}

void ProtectResult::add(const ProtectResult& later) {
  static constexpr u64 ProtectResult::* SUMS[] = {
      &ProtectResult::pages,
      &ProtectResult::none_to_marker,
      &ProtectResult::marker_to_none,
      &ProtectResult::present,
      &ProtectResult::swap,
      &ProtectResult::huge,
      &ProtectResult::none_skipped,
      &ProtectResult::tables_allocated,
      &ProtectResult::numa_huge_pte_updates,
      &ProtectResult::thp_split_pmd,
      &ProtectResult::dirtied,
      &ProtectResult::referenced,
  };
  for (u64 ProtectResult::* sum : SUMS) this->*sum += later.*sum;
  rss_file += later.rss_file;
  if (!later.flush.empty()) gather_flush(later.flush.start, later.flush.end);
  const auto append = [](auto& list, const auto& more) {
    for (const auto& item : more) list.push_back(item);
  };
  append(pmd_flush, later.pmd_flush);
  append(notifier, later.notifier);
  append(bad_cleared, later.bad_cleared);
  append(warnings, later.warnings);
}

}  // namespace ptwalk
