// The main of targets for AFL++: many inputs in one process, from shared memory. With arguments it
// runs those files instead, so that a crash can be looked at; without afl-fuzz it reads one input
// from stdin. Only AFL++'s compilers know the macros.
#include <unistd.h>

#include "target.hpp"

__AFL_FUZZ_INIT();

int main(int argc, char** argv) {
  if (argc > 1) return ptwalk::fuzz::replay(std::span(argv + 1, std::size_t(argc - 1)));
  LLVMFuzzerTestOneInput(nullptr, 0);  // what happens once happens before the fork server starts
  __AFL_INIT();
  const unsigned char* input = __AFL_FUZZ_TESTCASE_BUF;
  while (__AFL_LOOP(100000)) LLVMFuzzerTestOneInput(input, std::size_t(__AFL_FUZZ_TESTCASE_LEN));
  return 0;
}
