// Judges one operation, of any kind, by what it left of the address spaces: what may not be lost
// whatever an operation does, and what most operations have no business with. Slow: it looks at all
// entries before and after. Has no kernel counterpart.
#pragma once

#include <string_view>
#include <vector>

#include "ptwalk/fuzz/program.hpp"
#include "ptwalk/fuzz/violations.hpp"
#include "ptwalk/fuzz/world.hpp"

namespace ptwalk::fuzz {

class OperationJudge {
 public:
  /// Remembers the state of `world`; the operation, which has that name, comes next.
  OperationJudge(const World& world, std::string_view name, const Op& op);
  /// The violations that the operation shows.
  [[nodiscard]] u64 judge() const;

 private:
  /// An entry that is armed, or a private copy of a file's page.
  struct Kept {
    const AddressSpace* mm;
    u64 addr;
    u64 word;
    u64 end;  ///< of a run of equal entries
  };
  struct Space {
    std::shared_ptr<const AddressSpace> mm;
    std::vector<Vma> vmas;
    std::vector<PendingFault> pending;
  };
  [[nodiscard]] bool keeps_arms(const Vma& vma) const;
  void remember(const AddressSpace& mm, const Vma& vma);
  [[nodiscard]] bool lives(const AddressSpace* mm) const;
  [[nodiscard]] u64 judge_arms() const;
  [[nodiscard]] u64 judge_messages() const;
  [[nodiscard]] u64 judge_copies() const;
  [[nodiscard]] u64 judge_vmas(const Space& before) const;
  [[nodiscard]] u64 judge_child() const;
  [[nodiscard]] u64 judge_unregistered() const;

  const World& world_;
  const std::string_view name_;
  const Op op_;
  const AddressSpace* const named_;  ///< the address space that the operation names
  std::vector<Space> spaces_;
  std::vector<Kept> armed_;               ///< where user space relies on it
  std::vector<Kept> registered_, stale_;  ///< armed where something is registered, and where not
  std::vector<Kept> copies_;
};

/// Whether an entry is armed, in any of the ways in which one can be.
[[nodiscard]] bool armed(const Profile& profile, u64 word);

}  // namespace ptwalk::fuzz
