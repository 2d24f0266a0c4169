// What python/ptwalk/bench measures beside the public calls: the machine's limit, an empty call,
// and one leaf kernel on an array, without the walk above it.
#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "ptwalk/kernels.hpp"
#include "ptwalk/yardstick.hpp"

namespace ptwalk::bindings {

namespace {

using Words = py::array_t<u64, py::array::c_style>;

std::span<u64> writable_words(Words& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

void bound_read_modify_write(Words& array, u64 keep, u64 set, unsigned threads, unsigned passes) {
  const std::span<u64> words = writable_words(array);
  const py::gil_scoped_release released;
  for (unsigned pass = 0; pass < passes; ++pass) read_modify_write(words, keep, set, threads);
}

void copy_words(Words& out, const Words& array, unsigned passes) {
  if (out.size() != array.size()) {
    raise_invalid("out has " + std::to_string(out.size()) + " words for " +
                  std::to_string(array.size()) + "; pass arrays of one size");
  }
  const std::span<u64> words = writable_words(out);
  const u64* from = array.data();
  const py::gil_scoped_release released;
  for (unsigned pass = 0; pass < passes; ++pass) {
    std::memcpy(words.data(), from, words.size_bytes());
    asm volatile("" ::: "memory");  // every pass is made
  }
}

LeafKernel kernel_named(const std::string& name) {
  std::string known;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.name == name) return kernel.apply;
    known += (known.empty() ? "" : ", ") + std::string(kernel.name);
  }
  raise_invalid("kernel " + shown(py::str(name)) + " is not known; use one of " + known);
}

/// Applies to `array` what UFFDIO_WRITEPROTECT would to the entries at `addr`, as at first sight;
/// the pages counted.
u64 apply_kernel(const std::string& kernel, const Space& s, u64 addr, bool protect, Words& array) {
  const LeafKernel apply = kernel_named(kernel);
  const std::span<u64> words = writable_words(array);
  return finish(s.call(words.size() * PAGE_SIZE, [&]() -> Result<u64> {
    const Vma* vma = s.mm->vmas.find(addr);
    if (vma == nullptr) return {0, {Cause::vma_missing, "apply_kernel", addr}};
    const LeafPlan plan = s.mm->uffd_wp_plan(*vma, protect);
    u64 pages = 0;
    for (std::size_t i = 0; i < words.size(); i += PTRS_PER_TABLE) {
      const std::size_t nr = std::min<std::size_t>(PTRS_PER_TABLE, words.size() - i);
      pages += apply(plan, words.subspan(i, nr), s.mm->machine->pages, nullptr).pages;
    }
    return {pages, {}};
  }));
}

/// Puts back the entries of whole tables, read before; valid while every page and swap slot that
/// they name is still the same, for nothing is counted. `facts`: as a request that changed nothing
/// would leave the tables, with their facts, and shared where they are uniform.
void restore_ptes(const Space& s, u64 start, const Words& array, bool facts) {
  const std::span<const u64> words{array.data(), static_cast<std::size_t>(array.size())};
  const u64 length = words.size() * PAGE_SIZE;
  if (!is_aligned(start | length, PMD_SIZE)) {
    raise_invalid("restore_ptes: start " + hex16(start) + " and length " + hex16(length) +
                  " are not of whole tables; use multiples of 2 MiB");
  }
  FrameArena& frames = s.mm->machine->frames;
  const PagePool& pages = s.mm->machine->pages;
  const u64 marker = s.mm->machine->shared_tables.word(Uniform::marker);
  finish(s.call(length, [&]() -> Error {
    for (u64 at = 0; at < length; at += PMD_SIZE) {
      u64* table = s.mm->tables.writable(start + at, PTE_LEVEL, PTRS_PER_TABLE);
      if (!table) return {Cause::entry_no_table, "restore_ptes", PTE_LEVEL, start + at};
      std::memcpy(table, &words[at >> PAGE_SHIFT], PAGE_SIZE);
      if (!facts) continue;
      LeafFacts& known = frames.info(frames.pfn_of(table)).facts;
      known = leaf_facts({table, PTRS_PER_TABLE}, marker, pages);
      if (known.present == 0)
        s.mm->tables.share_if_uniform(s.mm->tables.writable(start + at, PMD_LEVEL));
    }
    return {};
  }));
}

}  // namespace

void register_yardstick(py::module_& m) {
  m.attr("compiler") = py::str(
#if defined(__clang__)
      "Clang " __clang_version__
#elif defined(__GNUC__)
      "GCC " __VERSION__
#else
      "another compiler"
#endif
  );
  m.def("empty_call", [](u64, u64) {}, "Does nothing with two integers.");
  m.def("read_modify_write", bound_read_modify_write, py::arg().noconvert(), py::arg(), py::arg(),
        py::arg(), py::arg(), "(word & keep) | set, for every word; threads, passes.");
  m.def("copy_words", copy_words, py::arg().noconvert(), py::arg().noconvert(), py::arg(),
        "memcpy of all words, that many times.");
  m.def("apply_kernel", apply_kernel, py::arg(), py::arg(), py::arg(), py::arg(),
        py::arg().noconvert(), "Wr-protects or resolves an array of entries by one leaf kernel.");
  m.def("restore_ptes", restore_ptes, py::arg(), py::arg(), py::arg().noconvert(), py::arg(),
        "Puts back the entries of whole tables, with their facts or without.");
}

}  // namespace ptwalk::bindings
