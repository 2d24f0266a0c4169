// The entry point of the C++ unit tests; every other file here tests the header of its stem.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
