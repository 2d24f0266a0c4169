// One leaf kernel on one mix, so that callgrind can count its instructions: see
// count_instructions.py.
//   count_instructions KERNEL REQUEST MIX PASSES     KERNEL "none" only puts the entries back;
// with "+" behind its name a kernel is told what is known of the tables.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "ptwalk/kernels.hpp"

namespace {

using namespace ptwalk;

constexpr std::size_t TABLES = 16, NR = TABLES * PTRS_PER_TABLE;
constexpr Pfn FIRST_PFN = 1 << 20;
constexpr u64 PRESENT =
    _PAGE_NX | _PAGE_USER | _PAGE_ACCESSED | _PAGE_PRESENT | _PAGE_RW | _PAGE_DIRTY;

struct Request {
  std::string_view name, profile;
  bool anon;
};
struct Mix {
  std::string_view name;
  unsigned present, none, swap;  // percent; the rest are markers
};
constexpr Request REQUESTS[] = {{"shmem", "uffd-wp-v2", false}, {"anon", "6.18", true}};
constexpr Mix MIXES[] = {{"present", 100, 0, 0},      {"none", 0, 100, 0},
                         {"marker", 0, 0, 0},         {"70/15/10/5", 70, 15, 10},
                         {"25/25/25/25", 25, 25, 25}, {"sparse", 2, 98, 0}};

LeafPlan plan(const Request& request, bool protect) {
  Vma vma;
  vma.kind = request.anon ? VmaKind::anon : VmaKind::shmem;
  vma.flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_UFFD_WP | VM_SOFTDIRTY |
              (request.anon ? 0 : VM_SHARED | VM_MAYSHARE);
  const u64 prot = vm_get_page_prot(vma.flags & ~(protect ? u64(VM_WRITE) : 0));
  const u32 resolve = MM_CP_UFFD_WP_RESOLVE | (request.anon ? MM_CP_TRY_CHANGE_WRITABLE : 0);
  return compile_plan(*find_profile(request.profile), vma, prot, protect ? MM_CP_UFFD_WP : resolve,
                      0, 1);
}

std::vector<u64> entries(const Mix& mix, u64 marker) {
  std::mt19937_64 random(1);
  std::vector<u64> words(NR);
  for (u64 i = 0; i < NR; ++i) {
    const unsigned dice = unsigned(random() % 100);
    words[i] = dice < mix.present              ? pfn_pte(FIRST_PFN + i, PRESENT)
               : dice < mix.present + mix.none ? 0
               : dice < mix.present + mix.none + mix.swap
                   ? make_swp_pte(0, 1 + random() % (1 << 20))
                   : marker;
  }
  return words;
}

template <class T>
const T* named(const T* first, const T* last, std::string_view name) {
  const T* found = std::find_if(first, last, [&](const T& item) { return item.name == name; });
  if (found == last) std::fprintf(stderr, "%s is not known\n", std::string(name).c_str());
  return found == last ? nullptr : found;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5)
    return std::fprintf(stderr, "usage: count_instructions KERNEL REQUEST MIX PASSES\n"), 2;
  const auto all = supported_kernels();
  const bool idle = !std::strcmp(argv[1], "none");
  std::string_view name = idle ? "scalar" : argv[1];
  const bool told = name.ends_with('+');
  if (told) name.remove_suffix(1);
  const KernelInfo* kernel = named(all.data(), all.data() + all.size(), name);
  const Request* request = named(std::begin(REQUESTS), std::end(REQUESTS), argv[2]);
  const Mix* mix = named(std::begin(MIXES), std::end(MIXES), argv[3]);
  if (!kernel || !request || !mix) return 2;

  const LeafPlan protect = plan(*request, true), resolve = plan(*request, false);
  const std::vector<u64> original = entries(*mix, protect.lanes.marker);
  PagePool pages;
  for (u64 i = 0; i < NR; ++i) {
    pages.at(FIRST_PFN + i).flags |= PG_anon;
    pages.set_anon_exclusive(FIRST_PFN + i, true);
  }
  std::vector<u64> words(NR);
  std::vector<LeafFacts> known, facts;
  for (std::size_t i = 0; i < NR; i += PTRS_PER_TABLE)
    known.push_back(leaf_facts({&original[i], PTRS_PER_TABLE}, protect.lanes.marker, pages));
  for (int pass = std::atoi(argv[4]); pass > 0; --pass) {
    std::memcpy(words.data(), original.data(), NR * sizeof(u64));
    if (idle) continue;
    facts = known;
    for (const LeafPlan* step : {&protect, &resolve})
      for (std::size_t i = 0; i < NR; i += PTRS_PER_TABLE)
        kernel->apply(*step, std::span(words).subspan(i, PTRS_PER_TABLE), pages,
                      told ? &facts[i / PTRS_PER_TABLE] : nullptr);
  }
  return 0;
}
