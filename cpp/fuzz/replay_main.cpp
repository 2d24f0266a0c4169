// The main of targets that are built without a fuzzer: runs inputs that are there.
#include <cstdio>

#include "target.hpp"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FILE|DIRECTORY ...\n", argv[0]);
    return 2;
  }
  return ptwalk::fuzz::replay(std::span(argv + 1, std::size_t(argc - 1)));
}
