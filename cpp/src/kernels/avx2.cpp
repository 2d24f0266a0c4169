// The vector kernel for x86-64 processors with AVX2: sixteen entries at a time.
#if defined(__x86_64__)
#define PTWALK_LANE_BYTES 32
#define PTWALK_TARGET __attribute__((target("avx2")))
#include "lane_kernel.hpp"

namespace ptwalk {

SpanCounts apply_avx2(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                      LeafFacts* facts) {
  return apply_lanes(plan, ptes, pages, facts);
}

}  // namespace ptwalk
#endif
