// The list of leaf kernels and the choice among them: the only place that knows which there are.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptwalk/kernels.hpp"

namespace ptwalk {
namespace {

std::vector<KernelInfo> find_supported() {
  std::vector<KernelInfo> found{{"scalar", apply_scalar}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", apply_avx2});
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
