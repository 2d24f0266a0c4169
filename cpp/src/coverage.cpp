#include "ptwalk/coverage.hpp"

#include <vector>

#include "ptwalk/kernels.hpp"

namespace ptwalk {
namespace {

constexpr const char* TEXTS[] = {
#define PTWALK_BRANCH_TEXT(name, text) text,
    PTWALK_BRANCHES(PTWALK_BRANCH_TEXT)
#undef PTWALK_BRANCH_TEXT
};
constexpr std::array<const char*, Coverage::REQUESTS> REQUEST_NAMES{"mprotect", "wr-protect",
                                                                    "resolve", "NUMA hint"};
constexpr std::array<const char*, Coverage::MAPPINGS> MAPPING_NAMES{"anonymous", "private file",
                                                                    "shared file"};
constexpr std::array<const char*, Coverage::OUTCOMES> OUTCOME_NAMES{
    "present", "swap entry changed", "none to marker", "marker to none", "none skipped", "flush"};

}  // namespace

u16 Coverage::first_of(const LeafPlan& plan, const Vma& vma) {
  const std::size_t request = plan.numa.active ? 3 : plan.swp_set ? 1 : plan.swp_clear ? 2 : 0;
  const std::size_t mapping = vma.anonymous() ? 0 : vma.shared() ? 2 : 1;
  return u16(NAMED + (request * MAPPINGS + mapping) * OUTCOMES);
}

void Coverage::hit_span(u16 first, const SpanCounts& counts) {
  const std::array<u32, OUTCOMES> outcomes{
      counts.present,        counts.swap,         counts.none_to_marker,
      counts.marker_to_none, counts.none_skipped, counts.flush_first <= counts.flush_last};
  for (std::size_t i = 0; i < OUTCOMES; ++i) counts_[first + i] += outcomes[i];
}

std::span<const std::string> Coverage::names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> names(std::begin(TEXTS), std::end(TEXTS));
    for (const char* request : REQUEST_NAMES)
      for (const char* mapping : MAPPING_NAMES)
        for (const char* outcome : OUTCOME_NAMES)
          names.push_back("change_pte_range: " + std::string(request) + ", " + mapping + ", " +
                          outcome);
    return names;
  }();
  return all;
}

}  // namespace ptwalk
