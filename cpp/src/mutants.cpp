#include "ptwalk/mutants.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace ptwalk {

#if defined(PTWALK_MUTANTS)
namespace {

constexpr MutantInfo ALL[] = {
#define PTWALK_MUTANT_INFO(name, text) {#name, text},
    PTWALK_MUTANTS_LIST(PTWALK_MUTANT_INFO)
#undef PTWALK_MUTANT_INFO
};

Mutant find(std::string_view name) {
  if (name.empty()) return Mutant::none;
  for (std::size_t i = 0; i < std::size(ALL); ++i)
    if (ALL[i].name == name) return Mutant(i + 1);
  std::string known;
  for (const MutantInfo& info : ALL) known.append(known.empty() ? "" : ", ").append(info.name);
  throw std::invalid_argument("mutant " + std::string(name) + " is not known; use one of " + known);
}

std::atomic<Mutant>& active() {
  static std::atomic<Mutant> chosen = [] {
    const char* name = std::getenv("PTWALK_MUTANT");
    return find(name ? name : "");
  }();
  return chosen;
}

}  // namespace

std::span<const MutantInfo> mutants() { return ALL; }

std::string_view active_mutant() {
  const Mutant now = active();
  return now == Mutant::none ? "" : ALL[std::size_t(now) - 1].name;
}

void choose_mutant(std::string_view name) { active() = find(name); }

bool planted(Mutant mutant) { return active().load(std::memory_order_relaxed) == mutant; }

#else

std::span<const MutantInfo> mutants() { return {}; }
std::string_view active_mutant() { return ""; }
void choose_mutant(std::string_view name) {
  if (name.empty()) return;
  throw std::invalid_argument("mutant " + std::string(name) +
                              ": this build has none; build with -DPTWALK_MUTANTS=ON");
}

#endif

}  // namespace ptwalk
