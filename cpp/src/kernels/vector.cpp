// The vector kernel in what every processor of an architecture has, such as SSE2 or NEON: eight
// entries at a time.
#define PTWALK_LANE_BYTES 16
#define PTWALK_TARGET
#include "lane_kernel.hpp"

namespace ptwalk {

SpanCounts apply_vector(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                        LeafFacts* facts) {
  return apply_lanes(plan, ptes, pages, facts);
}

}  // namespace ptwalk
