// Programs, raw stores among them, under the scalar kernel and under the fastest: all results and
// final states must be equal. PTWALK_KERNEL pins the fastest.
#include "ptwalk/fuzz/text.hpp"
#include "target.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Executor scalar = make_executor({.kernel = supported_kernels().data()});
  static Executor fastest = make_executor({});
  const std::span<const u8> program(data, size);
  const RunResult wanted = scalar.run(program), got = fastest.run(program);
  publish(scalar.coverage());
  if (wanted.digest == got.digest && wanted.visible == got.visible &&
      wanted.violations == got.violations)
    return 0;
  report("profile " + std::string(scalar.profile().name) + ": scalar and " +
         std::string(active_kernel().name) + " differ:\n" + to_text(program));
}
