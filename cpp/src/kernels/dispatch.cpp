// The list of leaf kernels and the choice among them: the only place that knows which there are.
#include <array>

#include "ptwalk/kernels.hpp"

namespace ptwalk {

std::span<const KernelInfo> kernels() {
  static constexpr std::array<KernelInfo, 1> ALL{{{"scalar", apply_scalar}}};
  return ALL;
}

LeafKernel best_kernel() { return kernels().back().apply; }

}  // namespace ptwalk
