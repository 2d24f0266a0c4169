// Checkpoints of a machine: made at once, restored at the cost of what was touched since. Has no
// kernel counterpart.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {

Checkpoint::Checkpoint(Machine& of)
    : machine(&of), owner(of.weak_from_this().lock()), position(of.undo.mark()) {
  for (AddressSpace* mm : of.mms())
    if (auto held = mm->weak_from_this().lock()) mms.push_back(std::move(held));
}

Checkpoint::~Checkpoint() { machine->release(*this); }

std::shared_ptr<const Checkpoint> Machine::checkpoint() {
  auto made = std::make_shared<const Checkpoint>(*this);
  checkpoints_.push_back(made.get());
  return made;
}

Error Machine::restore(const Checkpoint& to) {
  const auto found = std::find(checkpoints_.begin(), checkpoints_.end(), &to);
  if (found == checkpoints_.end()) return {Cause::checkpoint_void, "restore"};
  checkpoints_.erase(found + 1, checkpoints_.end());
  for (AddressSpace* mm : mms_)
    if (std::none_of(to.mms.begin(), to.mms.end(), [&](const auto& m) { return m.get() == mm; }))
      mm->gone = true;
  undo.restore(to.position);
  frames.was_restored();
  if (undo.size() == 0) files.for_each_kept([](File& file) { file.cache.drop_spare(); });
  return {};
}

void Machine::release(const Checkpoint& checkpoint) {
  std::erase(checkpoints_, &checkpoint);
  if (checkpoints_.empty()) undo.stop();
}

}  // namespace ptwalk
