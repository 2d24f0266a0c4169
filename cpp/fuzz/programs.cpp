// Programs of system calls, judged by the invariants. Raw stores do nothing here: what they make
// would not be judged.
#include "ptwalk/fuzz/text.hpp"
#include "target.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Executor executor = make_executor({.raw = false});
  const std::span<const u8> program(data, size);
  const RunResult result = executor.run(program);
  publish(executor.coverage());
  (void)executor.restore(0);  // frees what was allocated: libFuzzer looks for no leaks then
  if (!result.violations) return 0;
  std::string finding = "profile " + std::string(executor.profile().name) + " violates";
  for (std::size_t i = 0; i < violation_names().size(); ++i)
    if (result.violations >> i & 1) finding.append(1, ' ').append(violation_names()[i]);
  report(finding + ":\n" + to_text(program));
}
