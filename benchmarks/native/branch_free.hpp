// What a careful user writes: the usual classes by masks, without branches and without an upgrade,
// for the compiler to vectorise. Leaves out everything that LaneRules calls rare, so it is no
// kernel.
#pragma once

#include <cstddef>

#include "ptwalk/lane_rules.hpp"

/// Applies the rules to `nr` words; the number of changed or present ones.
ptwalk::u64 branch_free(ptwalk::u64* words, std::size_t nr, const ptwalk::LaneRules& rules);
