// The list of leaf kernels and the choice among them: the only place that knows which there are.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptwalk/kernels.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

/// The reference knows nothing but what it sees.
SpanCounts apply_reference(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                           LeafFacts* facts) {
  if (facts) *facts = {};
  return apply_scalar(plan, ptes, pages);
}

#if defined(PTWALK_MUTANTS)
/// A vector kernel with the planted bugs of lanes.
template <LeafKernel KERNEL>
SpanCounts with_bugs(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                     LeafFacts* facts) {
  std::vector<u64> before;
  if (planted(Mutant::lane_left_out)) before.assign(ptes.begin(), ptes.end());
  SpanCounts counts = KERNEL(plan, ptes, pages, facts);
  for (std::size_t i = 5; i < before.size(); i += 8) {
    ptes[i] = before[i];
    if (facts) *facts = {};
  }
  if (planted(Mutant::lane_flush_lost))
    counts.flush_first = SpanCounts::NO_FLUSH, counts.flush_last = 0;
  return counts;
}
#else
template <LeafKernel KERNEL>
constexpr LeafKernel with_bugs = KERNEL;
#endif

std::vector<KernelInfo> find_supported() {
  std::vector<KernelInfo> found{{"scalar", apply_reference}, {"vector", with_bugs<apply_vector>}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", with_bugs<apply_avx2>});
#endif
  return found;
}

}  // namespace

std::span<const KernelInfo> supported_kernels() {
  static const std::vector<KernelInfo> SUPPORTED = find_supported();
  return SUPPORTED;
}

std::span<const KernelInfo> kernels_up_to(std::string_view name) {
  const auto supported = supported_kernels();
  if (name.empty()) return supported;
  std::string names;
  for (std::size_t i = 0; i < supported.size(); ++i) {
    if (supported[i].name == name) return supported.first(i + 1);
    names += (i ? ", " : "") + std::string(supported[i].name);
  }
  throw std::invalid_argument("PTWALK_KERNEL=" + std::string(name) +
                              " names no kernel that this processor can run; choose from " + names +
                              " or unset it");
}

std::span<const KernelInfo> kernels() {
  static const std::span<const KernelInfo> CHOSEN = [] {
    const char* pinned = std::getenv("PTWALK_KERNEL");
    return kernels_up_to(pinned ? pinned : "");
  }();
  return CHOSEN;
}

const KernelInfo& active_kernel() { return kernels().back(); }

}  // namespace ptwalk
