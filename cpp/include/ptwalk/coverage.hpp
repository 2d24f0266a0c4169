// Branches of the rules, by name, and how often each was taken: what a fuzzer is guided by. An
// operation hits the branch that the kernel's function of that name would take. Leaf spans are
// counted by request, mapping and what became of the entries, so that every kernel gives the same;
// walks by what they meet at which level; a rule of the profile where it decides ([its name]).
#pragma once

#include <array>
#include <bit>
#include <span>
#include <string>

#include "ptwalk/branches.hpp"
#include "ptwalk/entry_class.hpp"

namespace ptwalk {

struct LeafPlan;
struct SpanCounts;
struct Vma;

/// Where each count lies: the named branches, then spans, then what walks met.
namespace places {

/// What a leaf span is counted by: what was asked, of which mapping, and what came of it.
inline constexpr std::size_t REQUESTS = 4, MAPPINGS = 3, OUTCOMES = 6;
inline constexpr std::size_t WALKS = std::size_t(LeafWalk::count);

using Mask = u16;
consteval Mask bit(EntryClass c) { return Mask(1 << unsigned(c)); }
inline constexpr Mask ANY = (1 << ENTRY_CLASSES) - 1, MAPPED = ANY & ~bit(EntryClass::none);
inline constexpr Mask PAGES =
    bit(EntryClass::present) | bit(EntryClass::armed) | bit(EntryClass::protnone);
inline constexpr std::array<Mask, WALKS> CLASSES{
#define PTWALK_WALK_CLASSES(name, text, classes) classes,
    PTWALK_WALKS(PTWALK_WALK_CLASSES)
#undef PTWALK_WALK_CLASSES
};
/// By request, the outcomes that it can have: markers come and go with userfaultfd only.
inline constexpr std::array<Mask, REQUESTS> RESULTS{0b100011, 0b110111, 0b101011, 0b100011};

consteval std::size_t bits_of(std::span<const Mask> masks) {
  std::size_t nr = 0;
  for (const Mask mask : masks) nr += std::size_t(std::popcount(mask));
  return nr;
}
inline constexpr std::size_t NAMED = std::size_t(Branch::count);
inline constexpr std::size_t FIRST_MET = NAMED + MAPPINGS * bits_of(RESULTS);
inline constexpr std::size_t SIZE = FIRST_MET + bits_of(CLASSES);

/// By row of a span and outcome; SIZE for what cannot happen.
inline constexpr auto SPANS = [] {
  std::array<std::array<u16, OUTCOMES>, REQUESTS * MAPPINGS> all{};
  std::size_t next = NAMED;
  for (std::size_t row = 0; row < all.size(); ++row)
    for (std::size_t outcome = 0; outcome < OUTCOMES; ++outcome)
      all[row][outcome] = u16(RESULTS[row / MAPPINGS] >> outcome & 1 ? next++ : SIZE);
  return all;
}();
/// By walk and class, likewise.
inline constexpr auto MET = [] {
  std::array<std::array<u16, ENTRY_CLASSES>, WALKS> all{};
  std::size_t next = FIRST_MET;
  for (std::size_t walk = 0; walk < WALKS; ++walk)
    for (std::size_t c = 0; c < ENTRY_CLASSES; ++c)
      all[walk][c] = u16(CLASSES[walk] >> c & 1 ? next++ : SIZE);
  return all;
}();

}  // namespace places

class Coverage {
 public:
  static constexpr std::size_t SIZE = places::SIZE;

  /// Whether walks count what they meet, and rules the entries that they decide: at the cost of a
  /// look at each.
  bool entries = false;

  void hit(Branch branch, u64 times = 1) { counts_[std::size_t(branch)] += times; }
  /// The row of the spans of a request on a VMA: LeafPlan::row.
  [[nodiscard]] static u16 row_of(const LeafPlan& plan, const Vma& vma);
  void hit_span(u16 row, const SpanCounts& counts, u64 times = 1);
  /// A walk met a leaf, or what is in place of one, `times` over.
  void meet(LeafWalk walk, const Profile& profile, u64 word, u64 times = 1) {
    if (entries)
      counts_[places::MET[std::size_t(walk)][std::size_t(class_of(profile, word))]] += times;
  }
  /// A span of entries that a plan is about to be applied to.
  void meet_span(const LeafPlan& plan, const Profile& profile, const Vma& vma,
                 std::span<const u64> ptes, u64 times = 1) {
    if (entries) look_at(plan, profile, vma, ptes, times);
  }
  /// A huge leaf that it is about to be applied to.
  void meet_huge(const LeafPlan& plan, const Profile& profile, u64 pmd);
  void clear() { counts_.fill(0); }

  [[nodiscard]] std::span<const u64> counts() const { return {counts_.data(), SIZE}; }
  /// What was counted where nothing should be: the places leave out what cannot happen.
  [[nodiscard]] u64 impossible() const { return counts_[SIZE]; }
  /// "do_fault: …" of each count.
  [[nodiscard]] static std::span<const std::string> names();

 private:
  void look_at(const LeafPlan& plan, const Profile& profile, const Vma& vma,
               std::span<const u64> ptes, u64 times);

  std::array<u64, SIZE + 1> counts_{};
};

}  // namespace ptwalk
