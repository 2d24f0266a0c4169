// The states that programs start from, by name: programs themselves. Has no kernel counterpart.
#pragma once

#include "ptwalk/fuzz/program.hpp"

namespace ptwalk::fuzz {

struct Setup {
  std::string_view name;
  std::string_view what;  ///< in a line
  std::span<const Op> ops;
};

std::span<const Setup> setups();
/// The setup of that name, or nullptr.
const Setup* find_setup(std::string_view name);

}  // namespace ptwalk::fuzz
