#include "ptwalk/leaf_facts.hpp"

#include <algorithm>

#include "ptwalk/swp_entry.hpp"

namespace ptwalk {
namespace {

/// Where the frames of entries with P lie, and whether their pages are AnonExclusive.
void find_frames(LeafFacts& facts, std::span<const u64> ptes, const PagePool& pages) {
  u32 first = ~0u, last = 0;
  u64 bits = 0;
  for (u64 pte : ptes) {
    if (!(pte & _PAGE_PRESENT)) continue;
    const u32 block = u32(pte_pfn(pte) >> LeafFacts::BLOCK_SHIFT);
    first = std::min(first, block);
    last = std::max(last, block);
    bits |= pte;
  }
  if (!bits || (bits & _PAGE_SPECIAL)) return;
  facts.set_blocks(first, last);
  if (facts.blocks && every_page_exclusive(ptes, pages)) facts.set_all_exclusive(pages);
}

bool are_alike(std::span<const u64> ptes) {
  return std::all_of(ptes.begin(), ptes.end(), [first = ptes[0]](u64 pte) {
    return (pte & _PAGE_PRESENT) && !((pte ^ first) & ~PTE_PFN_MASK);
  });
}

}  // namespace

bool every_page_exclusive(std::span<const u64> ptes, const PagePool& pages) {
  // Branches ask for P of some entries together: of one, they would go wrong as often as right.
  constexpr std::size_t AT_ONCE = 8;
  while (!ptes.empty()) {
    const auto some = ptes.first(std::min(AT_ONCE, ptes.size()));
    ptes = ptes.subspan(some.size());
    u64 any = 0, missing = 0;
    for (u64 pte : some) any |= pte & _PAGE_PRESENT;
    if (!any) continue;
    for (u64 pte : some) {
      const u64 present = pte & _PAGE_PRESENT;
      const Pfn pfn = ((pte & PTE_PFN_MASK) >> PAGE_SHIFT) & -present;
      missing |= present & ~u64(pages.anon_exclusive(pfn));
    }
    if (missing) return false;
  }
  return true;
}

LeafFacts leaf_facts(std::span<const u64> ptes, u64 marker, const PagePool& pages) {
  LeafFacts facts;
  for (u64 pte : ptes) {
    if (pte & _PAGE_PRESENT) {
      ++facts.present;
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
  facts.alike = are_alike(ptes);
  find_frames(facts, ptes, pages);
  return facts;
}

bool facts_hold(const LeafFacts& facts, std::span<const u64> ptes, u64 marker,
                const PagePool& pages) {
  if (!facts.known) return true;
  const LeafFacts found = leaf_facts(ptes, marker, pages);
  const auto in_blocks = [&](u64 pte) {
    return !(pte & _PAGE_PRESENT) ||
           (!(pte & _PAGE_SPECIAL) && pte_pfn(pte) - facts.first_frame() < facts.frames());
  };
  return found.known && found.present == facts.present && found.none == facts.none &&
         found.marker == facts.marker && found.armed == facts.armed &&
         (!facts.alike || found.alike) &&
         (facts.blocks == 0 ||
          (std::all_of(ptes.begin(), ptes.end(), in_blocks) &&
           (!facts.all_exclusive(pages) || every_page_exclusive(ptes, pages))));
}

}  // namespace ptwalk
