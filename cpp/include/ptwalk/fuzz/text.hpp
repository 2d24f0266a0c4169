// Programs as text, one line an operation: the fields in the order of its row in the table, address
// space and userfaultfd behind them where they are not the first. Has no kernel counterpart.
#pragma once

#include <string>

#include "ptwalk/fuzz/program.hpp"

namespace ptwalk::fuzz {

[[nodiscard]] std::string to_text(const Op& op);
/// Lines of the operations that run, without a newline at the end.
[[nodiscard]] std::string to_text(std::span<const u8> program);

}  // namespace ptwalk::fuzz
