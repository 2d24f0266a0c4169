// Every leaf kernel against scalar. The input is a request, from which a plan is compiled, and runs
// of entries: any word, any number of times up to a whole table.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "target.hpp"

using namespace ptwalk;

namespace {

/// The request, as it lies in the input; a shorter input ends in zeros.
struct Request {
  u8 profile, config, kind, prot;
  u16 vm_flags;  ///< bits of VM_FLAGS
  u8 cp_flags, rest;
};
/// Entries that follow one another.
struct Entries {
  u8 word[8];
  u8 count;  ///< one less than there are, modulo 64
  u8 how;    ///< KNOWN and RUNNING
};
static_assert(sizeof(Request) == 8 && sizeof(Entries) == 10);

constexpr u8 KNOWN = 1;    ///< the frame is one with facts
constexpr u8 RUNNING = 2;  ///< the frame grows from entry to entry
constexpr Pfn FACTS = 0x40000;
constexpr u64 NR_FACTS = 2560;

constexpr VmaKind KINDS[] = {VmaKind::anon, VmaKind::shmem, VmaKind::regular, VmaKind::dax};
constexpr u64 PROTS[] = {
    0x8000000000000025, 0x8000000000000027, PAGE_NONE, 0x2800000000000025, 0, 0x25, 0x67,
    0x800000000000003f};
constexpr u64 VM_FLAGS[] = {VM_READ,     VM_WRITE,     VM_EXEC,   VM_SHARED | VM_MAYSHARE,
                            VM_UFFD_WP,  VM_SOFTDIRTY, VM_PFNMAP, VM_MIXEDMAP,
                            VM_MAYSHARE, VM_MAYWRITE,  VM_LOCKED, VM_IO};
constexpr u32 CP_FLAGS[] = {0,
                            MM_CP_TRY_CHANGE_WRITABLE,
                            MM_CP_UFFD_WP,
                            MM_CP_UFFD_WP | MM_CP_TRY_CHANGE_WRITABLE,
                            MM_CP_UFFD_WP_RESOLVE,
                            MM_CP_UFFD_WP_RESOLVE | MM_CP_TRY_CHANGE_WRITABLE,
                            MM_CP_PROT_NUMA};

/// 512 frames of each sort: exclusive, shared by fork, cache, by turns, and without facts.
PagePool some_pages() {
  PagePool pages;
  for (u64 i = 0; i < NR_FACTS; ++i) {
    const u64 sort = i / PTRS_PER_TABLE;
    if (sort == 4) continue;
    const bool anon = sort < 2 || (sort == 3 && i % 3);
    Page& page = pages.at(FACTS + i);
    page.flags |= anon ? PG_anon : i % 2 ? PG_dirty : 0;
    page.mapcount = 1 + u32(i % 2);
    if (anon) pages.set_anon_exclusive(FACTS + i, sort == 0 || (sort == 3 && i % 3 == 1));
  }
  return pages;
}

LeafPlan plan_of(const Request& request) {
  Profile profile = profiles()[request.profile % profiles().size()];
  for (std::size_t i = 0; i < config_options().size(); ++i)
    if (request.config >> i & 1) set_config(profile, config_options()[i], true);
  Vma vma;
  vma.kind = KINDS[request.kind % std::size(KINDS)];
  for (std::size_t i = 0; i < std::size(VM_FLAGS); ++i)
    if (request.vm_flags >> i & 1) vma.flags |= VM_FLAGS[i];
  const u64 features = request.rest & 1 ? UFFD_FEATURE_WP_UNPOPULATED : 0;
  return compile_plan(profile, vma, PROTS[request.prot % std::size(PROTS)],
                      CP_FLAGS[request.cp_flags % std::size(CP_FLAGS)], features,
                      1 + (request.rest >> 1 & 1));
}

/// The same entry of a frame with facts.
u64 with_facts(u64 word) {
  if (pte_none(word)) return word;
  if (pte_present(word)) return pfn_pte(FACTS + pte_pfn(word) % NR_FACTS, word & ~PTE_PFN_MASK);
  return make_swp_pte(swp_type(word), FACTS + swp_offset(word) % NR_FACTS) | (word & SWP_FLAG_BITS);
}

/// One table full of entries at most.
std::size_t read_entries(std::span<const u8> input, std::span<u64> words) {
  std::size_t nr = 0;
  for (; input.size() >= sizeof(Entries); input = input.subspan(sizeof(Entries))) {
    Entries run;
    std::memcpy(&run, input.data(), sizeof run);
    u64 word;
    std::memcpy(&word, run.word, sizeof word);
    if (run.how & KNOWN) word = with_facts(word);
    for (u64 i = 0; i <= run.count % 64 && nr < words.size(); ++i)
      words[nr++] = word + (run.how & RUNNING ? i << PAGE_SHIFT : 0);
  }
  return nr;
}

/// Changes a copy of `before`, by the kernel and by scalar; what it became. `facts`: of a whole
/// table, as in LeafKernel.
std::array<u64, PTRS_PER_TABLE + 1> compare(const KernelInfo& kernel, const LeafPlan& plan,
                                            std::span<const u64> before, const PagePool& pages,
                                            LeafFacts* facts = nullptr) {
  constexpr u64 CANARY = 0x5a5a5a5a5a5a5a5a;
  std::array<u64, PTRS_PER_TABLE + 1> wanted, got;
  std::copy(before.begin(), before.end(), wanted.begin());
  std::copy(before.begin(), before.end(), got.begin());
  wanted[before.size()] = got[before.size()] = CANARY;
  const SpanCounts a = apply_scalar(plan, std::span(wanted).first(before.size()), pages);
  const SpanCounts b = kernel.apply(plan, std::span(got).first(before.size()), pages, facts);
  if (a != b) fuzz::report(std::string(kernel.name) + " counts otherwise than scalar");
  for (std::size_t i = 0; i <= before.size(); ++i)
    if (wanted[i] != got[i]) {
      char text[160];
      std::snprintf(text, sizeof text, ": entry %zu of %zu, %#llx, became %#llx, scalar says %#llx",
                    i, before.size(), 1ull * (i < before.size() ? before[i] : CANARY),
                    1ull * got[i], 1ull * wanted[i]);
      fuzz::report(std::string(kernel.name) + text);
    }
  const auto table = std::span<const u64>(got).first(before.size());
  if (facts && !facts_hold(*facts, table, plan.lanes.marker, pages))
    fuzz::report(std::string(kernel.name) + " keeps facts that do not hold");
  return got;
}

/// One table under four requests, with what the kernel knows of it from one to the next. Before the
/// last one a page ceases to be exclusive.
void compare_known(const KernelInfo& kernel, Request request, std::span<const u64> table) {
  PagePool pages = some_pages();
  LeafFacts facts;
  std::array<u64, PTRS_PER_TABLE + 1> words;
  std::copy(table.begin(), table.end(), words.begin());
  for (unsigned turn = 0; turn < 4; ++turn, request.cp_flags = u8(request.cp_flags + 2)) {
    words = compare(kernel, plan_of(request), std::span(words).first(table.size()), pages, &facts);
    const u64 present = words[request.rest % PTRS_PER_TABLE];
    if (turn == 2 && pte_present(present) && pages.anon_exclusive(pte_pfn(present)))
      pages.set_anon_exclusive(pte_pfn(present), false);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const PagePool pages = [] {
    fuzz::plant_bug();
    return some_pages();
  }();
  Request request{};
  if (size) std::memcpy(&request, data, std::min(size, sizeof request));
  const LeafPlan plan = plan_of(request);
  std::array<u64, PTRS_PER_TABLE> words;
  const std::size_t nr = size <= sizeof request
                             ? 0
                             : read_entries({data + sizeof request, size - sizeof request}, words);
  // Where the span begins decides how a kernel's vectors lie.
  const std::size_t first = nr ? request.rest >> 2 & 15 : 0;
  for (const KernelInfo& kernel : supported_kernels().subspan(1)) {
    (void)compare(kernel, plan, std::span(words).first(nr).subspan(std::min(first, nr)), pages);
    if (nr == PTRS_PER_TABLE) compare_known(kernel, request, words);
  }
  return 0;
}
