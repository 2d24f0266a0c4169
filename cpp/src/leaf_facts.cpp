#include "ptwalk/leaf_facts.hpp"

#include <algorithm>

#include "ptwalk/swp_entry.hpp"

namespace ptwalk {

LeafFacts leaf_facts(std::span<const u64> ptes, u64 marker) {
  LeafFacts facts;
  u32 first = ~0u, last = 0;
  u64 bits = 0;  // of entries with P
  for (u64 pte : ptes) {
    if (pte & _PAGE_PRESENT) {
      ++facts.present;
      const u32 block = u32(pte_pfn(pte) >> LeafFacts::BLOCK_SHIFT);
      first = std::min(first, block);
      last = std::max(last, block);
      bits |= pte;
    } else if (pte == 0) {
      ++facts.none;
    } else if (marker && pte == marker) {
      ++facts.marker;
    } else if (pte >> 63 || (pte & (_PAGE_PROTNONE | ERRATUM_MASK)) || pte == _PAGE_SWP_UFFD_WP) {
      return {};
    } else if (pte & _PAGE_SWP_UFFD_WP) {
      ++facts.armed;
    }
  }
  facts.known = true;
  if (facts.present && !(bits & _PAGE_SPECIAL)) facts.set_blocks(first, last);
  return facts;
}

bool facts_hold(const LeafFacts& facts, std::span<const u64> ptes, u64 marker) {
  if (!facts.known) return true;
  const LeafFacts found = leaf_facts(ptes, marker);
  const u64 frames = u64(facts.blocks) << LeafFacts::BLOCK_SHIFT;
  const auto in_blocks = [&](u64 pte) {
    return !(pte & _PAGE_PRESENT) ||
           (!(pte & _PAGE_SPECIAL) && pte_pfn(pte) - facts.first_frame() < frames);
  };
  return found.known && found.present == facts.present && found.none == facts.none &&
         found.marker == facts.marker && found.armed == facts.armed &&
         (facts.blocks == 0 || std::all_of(ptes.begin(), ptes.end(), in_blocks));
}

}  // namespace ptwalk
