#include "ptwalk/plan_cache.hpp"

#include "ptwalk/mutants.hpp"

namespace ptwalk {

const LeafPlan& PlanCache::get(const Vma& vma, u64 newprot, u32 cp_flags, u64 uffd_features,
                               u32 mm_users) {
  const Request request{vma.flags, newprot, uffd_features, cp_flags, mm_users, vma.kind};
  if (slots_[last_].used && slots_[last_].request == request && !MUTANTS_PLANTED)
    return slots_[last_].plan;
  // Two slots, so that two requests that are made in turn do not drive each other out.
  constexpr u64 GOLDEN = 0x9e3779b97f4a7c15;
  u64 mixed = (newprot ^ u64(cp_flags) << 32) * GOLDEN;
  mixed = (mixed ^ mixed >> 32 ^ vma.flags) * GOLDEN;
  mixed = (mixed ^ mixed >> 32 ^ uffd_features ^ u64(vma.kind) << 32) * GOLDEN;
  const u64 first = mixed >> (64 - SLOTS_SHIFT) & ~1ull;
  for (u64 i = first; i <= first + 1 && !MUTANTS_PLANTED; ++i)
    if (slots_[i].used && slots_[i].request == request) return slots_[last_ = i].plan;
  Vma seen;  // with nothing that the request does not hold
  seen.flags = request.vm_flags;
  seen.kind = request.kind;
  slots_[first + 1] = slots_[first];
  slots_[first] = {true, request,
                   compile_plan(profile_, seen, newprot, cp_flags, uffd_features, mm_users)};
  return slots_[last_ = first].plan;
}

}  // namespace ptwalk
