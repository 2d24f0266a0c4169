// Read-modify-write of plain memory: see yardstick.hpp.
#include "ptwalk/yardstick.hpp"

#include <algorithm>

#include "ptwalk/thread_pool.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ptwalk {
namespace {

constexpr std::size_t WORDS_PER_CHUNK = 16 * PTRS_PER_TABLE;  // what change_protection hands out

void plain(std::span<u64> words, u64 keep, u64 set) {
  for (u64& word : words) word = (word & keep) | set;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void avx2(std::span<u64> words, u64 keep, u64 set) {
  const __m256i k = _mm256_set1_epi64x(i64(keep)), s = _mm256_set1_epi64x(i64(set));
  std::size_t i = 0;
  for (; i + 16 <= words.size(); i += 16) {  // two lines at a time, as the kernels do
    auto* at = reinterpret_cast<__m256i*>(&words[i]);
    const __m256i a = _mm256_loadu_si256(at), b = _mm256_loadu_si256(at + 1);
    const __m256i c = _mm256_loadu_si256(at + 2), d = _mm256_loadu_si256(at + 3);
    _mm256_storeu_si256(at, _mm256_or_si256(_mm256_and_si256(a, k), s));
    _mm256_storeu_si256(at + 1, _mm256_or_si256(_mm256_and_si256(b, k), s));
    _mm256_storeu_si256(at + 2, _mm256_or_si256(_mm256_and_si256(c, k), s));
    _mm256_storeu_si256(at + 3, _mm256_or_si256(_mm256_and_si256(d, k), s));
  }
  plain(words.subspan(i), keep, set);
}
#endif

}  // namespace

void read_modify_write(std::span<u64> words, u64 keep, u64 set, unsigned threads) {
  auto loop = plain;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) loop = avx2;
#endif
  if (threads <= 1) return loop(words, keep, set);
  const std::size_t chunks = (words.size() + WORDS_PER_CHUNK - 1) / WORDS_PER_CHUNK;
  ThreadPool::shared().run(threads, chunks, [&](std::size_t chunk) {
    const std::size_t first = chunk * WORDS_PER_CHUNK;
    loop(words.subspan(first, std::min(WORDS_PER_CHUNK, words.size() - first)), keep, set);
  });
}

}  // namespace ptwalk
