#include "ptwalk/plan_cache.hpp"

#include "ptwalk/mutants.hpp"

namespace ptwalk {

const LeafPlan& PlanCache::get(const Vma& vma, u64 newprot, u32 cp_flags, u64 uffd_features,
                               u32 mm_users) {
  const Request request{vma.flags, newprot, uffd_features, cp_flags, mm_users, vma.kind};
  // A multiplicative hash: arming and resolving, read-only and writable lie in slots of their own.
  constexpr u64 GOLDEN = 0x9e3779b97f4a7c15;
  const u64 mixed = (newprot ^ vma.flags << 8 ^ u64(cp_flags) << 40 ^ u64(vma.kind) << 48) * GOLDEN;
  Slot& slot = slots_[mixed >> 61];
  const bool kept = slot.used && slot.request == request && !MUTANTS_PLANTED;
  if (!kept) {
    Vma seen;  // with nothing that the request does not hold
    seen.flags = request.vm_flags;
    seen.kind = request.kind;
    slot = {true, request,
            compile_plan(profile_, seen, newprot, cp_flags, uffd_features, mm_users)};
  }
  return slot.plan;
}

}  // namespace ptwalk
