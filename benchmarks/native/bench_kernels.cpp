// Nanoseconds per entry of every leaf kernel, beside the machine's limit and a branch-free loop.
// One wr-protect and one resolve of the same tables, taken in turns with the other contenders; what
// counts is the ratio to `rmw`, which reads and writes the same bytes and decides nothing.
// A kernel keeps facts of a table from one look to the next: its name alone means that it has them,
// as in tables that nobody stored to meanwhile; "first" that it looks for the first time.
//   bench_kernels [--quick] [--json FILE]     prints a Markdown table
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "branch_free.hpp"
#include "ptwalk/kernels.hpp"

namespace {

using namespace ptwalk;
using Words = std::span<u64>;

constexpr Pfn FIRST_PFN = 1 << 20;
constexpr u64 NX_USER = _PAGE_NX | _PAGE_USER | _PAGE_ACCESSED | _PAGE_PRESENT;

/// A request pair on one VMA under one profile.
struct Request {
  std::string_view name;
  std::string_view profile;
  bool anon;
  [[nodiscard]] Vma vma() const {
    Vma made;
    made.kind = anon ? VmaKind::anon : VmaKind::shmem;
    made.flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_UFFD_WP | VM_SOFTDIRTY |
                 (anon ? 0 : VM_SHARED | VM_MAYSHARE);
    return made;
  }
  [[nodiscard]] LeafPlan plan(bool protect) const {
    const u64 prot = vm_get_page_prot(vma().flags & ~(protect ? u64(VM_WRITE) : 0));
    const u32 resolve = MM_CP_UFFD_WP_RESOLVE | (anon ? MM_CP_TRY_CHANGE_WRITABLE : 0);
    return compile_plan(*find_profile(profile), vma(), prot, protect ? MM_CP_UFFD_WP : resolve, 0,
                        1);
  }
};

/// Shares of present, none, swap and marker entries, in percent.
struct Mix {
  std::string_view name;
  unsigned present, none, swap;
};

constexpr Request REQUESTS[] = {{"uffd-wp-v2 shmem", "uffd-wp-v2", false},
                                {"6.18 anon", "6.18", true}};
constexpr Mix MIXES[] = {{"all present", 100, 0, 0}, {"all none", 0, 100, 0},
                         {"all marker", 0, 0, 0},    {"70/15/10/5", 70, 15, 10},
                         {"25 each", 25, 25, 25},    {"2 % sparse", 2, 98, 0}};

using Facts = std::vector<LeafFacts>;  // of each table

struct Contender {
  std::string name;
  std::function<void(Words, const LeafPlan&, const PagePool&, Facts&)> pass;
  bool knows = false;  ///< is told the facts
};

struct Row {
  std::string request, mix, contender;
  std::size_t bytes;
  double least, median;  ///< ns per entry, mean of wr-protect and resolve
};

/// In-place and+or of every word: what reading and writing the table costs by itself.
#if defined(__x86_64__)
__attribute__((target("avx2"))) void rmw(Words words, const LeafPlan& plan, const PagePool&,
                                         Facts&) {
  const __m256i keep = _mm256_set1_epi64x(i64(~plan.clear));
  const __m256i set = _mm256_set1_epi64x(i64(plan.set));
  for (std::size_t i = 0; i + 16 <= words.size(); i += 16) {  // two lines at a time, as kernels do
    auto* at = reinterpret_cast<__m256i*>(&words[i]);
    const __m256i a = _mm256_loadu_si256(at), b = _mm256_loadu_si256(at + 1);
    const __m256i c = _mm256_loadu_si256(at + 2), d = _mm256_loadu_si256(at + 3);
    _mm256_storeu_si256(at, _mm256_or_si256(_mm256_and_si256(a, keep), set));
    _mm256_storeu_si256(at + 1, _mm256_or_si256(_mm256_and_si256(b, keep), set));
    _mm256_storeu_si256(at + 2, _mm256_or_si256(_mm256_and_si256(c, keep), set));
    _mm256_storeu_si256(at + 3, _mm256_or_si256(_mm256_and_si256(d, keep), set));
  }
}
#else
void rmw(Words words, const LeafPlan& plan, const PagePool&, Facts&) {
  for (u64& word : words) word = (word & ~plan.clear) | plan.set;
}
#endif

volatile u64 sink;  ///< keeps counts alive

std::vector<Contender> contenders() {
  std::vector<Contender> all{
      {"rmw", rmw}, {"branch-free", [](Words words, const LeafPlan& plan, const PagePool&, Facts&) {
                       sink = sink + branch_free(words.data(), words.size(), plan.lanes);
                     }}};
  for (const KernelInfo& kernel : supported_kernels()) {
    const auto pass = [apply = kernel.apply](Words words, const LeafPlan& plan,
                                             const PagePool& pages, Facts& facts) {
      u64 counted = 0;
      for (std::size_t i = 0; i < words.size(); i += PTRS_PER_TABLE)
        counted +=
            apply(plan, words.subspan(i, PTRS_PER_TABLE), pages, &facts[i / PTRS_PER_TABLE]).pages;
      sink = sink + counted;
    };
    const std::string name(kernel.name);
    if (name != "scalar") all.push_back({name + " first", pass});
    all.push_back({name, pass, true});
  }
  return all;
}

/// Entries as a process would have them that touched its pages in order.
void fill(Words words, const Request& request, const Mix& mix) {
  std::mt19937_64 random(1);
  const LeafPlan plan = request.plan(true);
  u64 next = 0;
  for (u64& word : words) {
    const unsigned dice = unsigned(random() % 100);
    if (dice < mix.present)
      word = pfn_pte(FIRST_PFN + next++, NX_USER | _PAGE_RW | _PAGE_DIRTY);
    else if (dice < mix.present + mix.none)
      word = 0;
    else if (dice < mix.present + mix.none + mix.swap)
      word = make_swp_pte(0, 1 + random() % (1 << 20));
    else
      word = plan.lanes.marker;
  }
}

/// What is known of the tables after requests have come and gone.
Facts facts_of(Words words, const Request& request, const PagePool& pages) {
  const u64 marker = request.plan(true).lanes.marker;
  Facts facts;
  for (std::size_t i = 0; i < words.size(); i += PTRS_PER_TABLE)
    facts.push_back(leaf_facts(words.subspan(i, PTRS_PER_TABLE), marker, pages));
  return facts;
}

double nanoseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

/// Measures all contenders on one mix, in turns, each on fresh copies of the same entries.
void measure(Words words, const Request& request, const Mix& mix, const PagePool& pages, int rounds,
             std::vector<Row>& rows) {
  const LeafPlan protect = request.plan(true), resolve = request.plan(false);
  const std::vector<Contender> all = contenders();
  std::vector<std::vector<double>> times(all.size());
  fill(words, request, mix);
  const std::vector<u64> original(words.begin(), words.end());
  const Facts known = facts_of(words, request, pages);
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::memcpy(words.data(), original.data(), words.size_bytes());
      Facts facts = known;
      double ns = 0;
      for (const LeafPlan* plan : {&protect, &resolve}) {
        if (!all[i].knows) facts.assign(known.size(), {});
        ns += nanoseconds([&] { all[i].pass(words, *plan, pages, facts); });
      }
      times[i].push_back(ns / 2 / double(words.size()));
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    rows.push_back({std::string(request.name), std::string(mix.name), all[i].name,
                    words.size_bytes(), times[i].front(), times[i][times[i].size() / 2]});
  }
}

void print_table(const std::vector<Row>& rows) {
  const std::size_t width = contenders().size();
  std::printf("| tables | request | mix | rmw ns/entry |");
  for (std::size_t i = 1; i < width; ++i) std::printf(" %s |", rows[i].contender.c_str());
  std::printf("\n|---|---|---|---|");
  for (std::size_t i = 1; i < width; ++i) std::printf("---|");
  std::printf("\n");
  for (std::size_t i = 0; i < rows.size(); i += width) {
    const Row& limit = rows[i];
    std::printf("| %zu KiB | %s | %s | %.3f |", limit.bytes >> 10, limit.request.c_str(),
                limit.mix.c_str(), limit.least);
    for (std::size_t k = 1; k < width; ++k)
      std::printf(" %.2f (%.2f) |", rows[i + k].least / limit.least,
                  rows[i + k].median / limit.median);
    std::printf("\n");
  }
  std::printf(
      "\nRatios to rmw in the same run: of the fastest rounds, in brackets of the medians.\n");
}

bool write_json(const std::vector<Row>& rows, const char* path) {
  std::FILE* file = std::fopen(path, "w");
  if (!file) return false;
  std::fprintf(file, "[\n");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    std::fprintf(file,
                 "  {\"bytes\": %zu, \"request\": \"%s\", \"mix\": \"%s\", \"contender\": \"%s\", "
                 "\"min_ns\": %.5f, \"median_ns\": %.5f}%s\n",
                 row.bytes, row.request.c_str(), row.mix.c_str(), row.contender.c_str(), row.least,
                 row.median, i + 1 < rows.size() ? "," : "");
  }
  std::fprintf(file, "]\n");
  return std::fclose(file) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  const char* json = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick"))
      quick = true;
    else if (!std::strcmp(argv[i], "--json") && i + 1 < argc)
      json = argv[++i];
    else
      return std::fprintf(stderr, "usage: bench_kernels [--quick] [--json FILE]\n"), 2;
  }
  constexpr std::size_t L2 = 256 << 10, DRAM = 256 << 20;
  void* memory = ::mmap(nullptr, DRAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return std::perror("mmap of 256 MiB"), 1;
  ::madvise(memory, DRAM, MADV_HUGEPAGE);
  std::vector<Row> rows;
  for (const std::size_t bytes : {L2, DRAM}) {
    if (quick && bytes == DRAM) continue;
    const Words words(static_cast<u64*>(memory), bytes / sizeof(u64));
    PagePool pages;
    for (u64 i = 0; i < words.size(); ++i) {
      pages.at(FIRST_PFN + i).flags |= PG_anon;
      pages.set_anon_exclusive(FIRST_PFN + i, true);
    }
    for (const Request& request : REQUESTS)
      for (const Mix& mix : MIXES) {
        std::fprintf(stderr, "%zu KiB, %s, %s\n", bytes >> 10, request.name.data(),
                     mix.name.data());
        measure(words, request, mix, pages, bytes == L2 ? 400 : 7, rows);
      }
  }
  print_table(rows);
  if (json && !write_json(rows, json)) return std::perror(json), 1;
  return 0;
}
