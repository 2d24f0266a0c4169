// Planted bugs: by name, one at a time, and none in a normal build.
#include "ptwalk/mutants.hpp"

#include <doctest/doctest.h>

#include <set>
#include <stdexcept>

using namespace ptwalk;

#if defined(PTWALK_MUTANTS)

TEST_CASE("there are forty at least, each with a name and a sentence of its own") {
  std::set<std::string_view> names, texts;
  for (const MutantInfo& mutant : mutants()) {
    names.insert(mutant.name);
    texts.insert(mutant.text);
  }
  CHECK(mutants().size() >= 40);
  CHECK(names.size() == mutants().size());
  CHECK(texts.size() == mutants().size());
}

TEST_CASE("the chosen one is planted, and no other") {
  choose_mutant("marker_not_dropped");
  CHECK(planted(Mutant::marker_not_dropped));
  CHECK_FALSE(planted(Mutant::rw_left_on));
  CHECK(active_mutant() == "marker_not_dropped");
  choose_mutant("");
  CHECK_FALSE(planted(Mutant::marker_not_dropped));
  CHECK_THROWS_AS(choose_mutant("marker_not_droped"), std::invalid_argument);
}

#else

TEST_CASE("a normal build has none and says so") {
  CHECK(mutants().empty());
  CHECK(active_mutant().empty());
  CHECK_FALSE(planted(Mutant::rw_left_on));
  CHECK_THROWS_WITH_AS(choose_mutant("rw_left_on"),
                       doctest::Contains("build with -DPTWALK_MUTANTS=ON"), std::invalid_argument);
}

#endif
