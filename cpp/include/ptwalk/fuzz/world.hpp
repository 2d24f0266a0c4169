// What a program acts on: a machine, its address spaces in the order of their making, the
// userfaultfds that user space has a descriptor of, and the migrations under way. Has no kernel
// counterpart.
#pragma once

#include "ptwalk/address_space.hpp"

namespace ptwalk::fuzz {

struct World {
  explicit World(const Profile& profile, int levels = 4, u64 max_tables = FrameArena::DEFAULT_LIMIT)
      : machine(std::make_shared<Machine>(profile, levels, max_tables)),
        spaces{std::make_shared<AddressSpace>(machine)},
        limited(max_tables < FrameArena::DEFAULT_LIMIT),
        fails(limited) {}

  std::shared_ptr<Machine> machine;
  std::vector<std::shared_ptr<AddressSpace>> spaces;  ///< living ones, never none
  std::vector<UffdId> fds;
  std::vector<MigratingPage> migrations;
  bool raw = false;  ///< a raw store was made: entries may lie anywhere and mean anything
  bool limited;      ///< there are few table frames
  bool fails;        ///< allocations may fail, and counts then miss what was done before
};

/// A state of a world to come back to.
class SavedWorld {
 public:
  explicit SavedWorld(World& world) : saved_(world), checkpoint_(world.machine->checkpoint()) {}
  /// At the cost of what was touched since.
  void restore(World& world) const {
    (void)world.machine->restore(*checkpoint_);
    world = saved_;
  }

 private:
  const World saved_;
  const std::shared_ptr<const Checkpoint> checkpoint_;
};

}  // namespace ptwalk::fuzz
