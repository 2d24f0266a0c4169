// The plans that a machine compiled last: programs repeat their requests, and compiling one takes
// longer than to apply it to a few entries. Has no kernel counterpart.
#pragma once

#include "ptwalk/plan.hpp"

namespace ptwalk {

class PlanCache {
 public:
  explicit PlanCache(const Profile& profile) : profile_(profile) {}

  /// What compile_plan() gives for the same arguments. Valid until the next call.
  const LeafPlan& get(const Vma& vma, u64 newprot, u32 cp_flags, u64 uffd_features, u32 mm_users);

 private:
  /// All that a plan follows from, beside the profile.
  struct Request {
    u64 vm_flags = 0;
    u64 newprot = 0;
    u64 uffd_features = 0;
    u32 cp_flags = 0;
    u32 mm_users = 0;
    VmaKind kind = VmaKind::anon;
    bool operator==(const Request&) const = default;
  };
  struct Slot {
    bool used = false;
    Request request{};
    LeafPlan plan{};
  };

  const Profile& profile_;
  static constexpr unsigned SLOTS_SHIFT = 6;
  std::array<Slot, 1 << SLOTS_SHIFT> slots_{};
  u64 last_ = 0;  ///< the slot that was used last
};

}  // namespace ptwalk
