// Hashes every part of a machine in a fixed order. Entries come as runs of equal words of one
// level, each at its address, so that it does not matter how tables are shared.
#include "ptwalk/fuzz/digest.hpp"

#include <algorithm>

#include "ptwalk/fuzz/violations.hpp"

namespace ptwalk::fuzz {
namespace {

void add_vma(Hash& hash, const Vma& vma) {
  hash.add(vma.start, vma.end, vma.flags, vma.page_prot, vma.pgoff, vma.file, vma.uffd,
           u64(vma.anon_vma) << 32 | vma.anon_vma_chain, u64(vma.name) << 8 | u64(vma.kind));
}

void add_page(Hash& hash, const PagePool& pages, Pfn pfn, const Page& page) {
  // In the order in which they lie there: one load.
  const u64 facts = u64(page.mapcount) | u64(page.flags) << 32 | u64(page.order) << 48 |
                    u64(page.elsewhere) << 56;
  hash.add(page.index, page.file, page.swap_slot,
           facts | u64(pages.anon_exclusive(pfn)) * PG_anon_exclusive << 32);
}
void add_page(Hash& hash, const PagePool& pages, Pfn pfn) {
  if (const Page* page = pages.find(pfn)) add_page(hash, pages, pfn, *page);
}

/// Pages with one word, at one level.
struct RunOfPages {
  u64 start = 0, word = 0;
  Level level = 0;
};

/// Gathers runs of equal entries; hashes and judges each when it ends. Where there is no VMA, none
/// entries count for nothing.
class Entries {
 public:
  Entries(Hash& hash, const Machine& machine) : hash_(hash), machine_(machine) {}

  /// The VMA that the next ones lie in, or nullptr.
  const Vma* vma = nullptr;
  u64 violations = 0;

  void add(u64 addr, u64 word, Level level) {
    if (started_ && word == run_.word && level == run_.level) return;
    end(addr);
    run_ = {addr, word, level};
    started_ = true;
  }
  void end(u64 addr) {
    if (!started_) return;
    started_ = false;
    if (!run_.word && !vma) return;
    hash_.add(run_.start | u64(run_.level), run_.word);
    if (!vma) hash_.add(addr);  // in a VMA the next one begins where this one ends
    if (!pte_none(run_.word)) add_meaning();
  }

 private:
  /// What the word stands for.
  void add_meaning() {
    const u64 word = run_.word;
    if (!is_present(word, run_.level)) {
      violations |= judge_entry(machine_, vma, run_.start, word, run_.level);
      return;
    }
    const Pfn pfn = leaf_address(word, run_.level) >> PAGE_SHIFT;
    const Page* const page = machine_.pages.find(pfn);
    violations |= judge_present(machine_, vma, run_.start, word, run_.level, page);
    if (page) add_page(hash_, machine_.pages, pfn, *page);
  }

  Hash& hash_;
  const Machine& machine_;
  RunOfPages run_{};
  bool started_ = false;
};

/// Mappings lie side by side: the extent that was found last most often goes on.
class Extents {
 public:
  explicit Extents(const PageTable& tables) : tables_(tables) {}
  Extent find(u64 addr, u64 limit) {
    if (!table_ || addr >> PMD_SHIFT != index_) {
      const Extent at = tables_.extent(addr, limit);
      if (at.level != PTE_LEVEL || at.uniform) return at;
      table_ = at.entry - level_index(addr, PTE_LEVEL);
      index_ = addr >> PMD_SHIFT;
    }
    const u64 table_end = (index_ + 1) << PMD_SHIFT;
    return {table_ + level_index(addr, PTE_LEVEL), PTE_LEVEL, false, std::min(limit, table_end)};
  }

 private:
  static constexpr unsigned PMD_SHIFT = level_shift(PMD_LEVEL);
  const PageTable& tables_;
  const u64* table_ = nullptr;  ///< the last PTE table that is not shared
  u64 index_ = 0;
};

/// [start, end) of one address space, as far as there are entries.
void add_entries(Entries& out, const PageTable& tables, Extents& extents, u64 start, u64 end) {
  for (u64 addr = start; addr < end;) {
    const Extent at = extents.find(addr, end);
    if (at.uniform) {
      // Above the PTE level a word has a meaning of its own unless it points to a table.
      const bool has_word =
          at.level == PTE_LEVEL || tables.kind(*at.entry, at.level) != EntryKind::table;
      out.add(addr, has_word ? *at.entry : 0, at.level);
    } else {
      const u64 nr = (at.end - addr) >> PAGE_SHIFT;
      for (u64 i = 0; i < nr; ++i) out.add(addr + (i << PAGE_SHIFT), at.entry[i], PTE_LEVEL);
    }
    addr = at.end;
  }
  out.end(end);
}

u64 add_space(Hash& hash, const AddressSpace& mm, Scope scope) {
  hash.add(mm.vmas.all().size(), mm.users, mm.tables.nr_tables(), mm.pending.all().size());
  Entries entries(hash, *mm.machine);
  Extents extents(mm.tables);
  u64 done = 0;
  const auto outside = [&](u64 end) {
    entries.vma = nullptr;
    if (scope == Scope::everywhere) add_entries(entries, mm.tables, extents, done, end);
  };
  for (const Vma& vma : mm.vmas.all()) {
    outside(vma.start);
    add_vma(hash, vma);
    entries.vma = &vma;
    add_entries(entries, mm.tables, extents, vma.start, vma.end);
    done = vma.end;
  }
  outside(mm.task_size() + PAGE_SIZE);
  for (const PendingFault& fault : mm.pending.all()) {
    hash.add(fault.address, u64(fault.write) | u64(fault.woken) << 1, fault.uffd);
    add_message(hash, fault.message);
  }
  return entries.violations;
}

void add_files(Hash& hash, const Machine& machine) {
  hash.add(machine.files.size());
  for (const File& file : machine.files) {
    hash.add(u64(file.kind) | u64(file.writable) << 8, file.size, file.cache.size());
    for (u64 index = file.cache.next(0); index != PageCache::NO_INDEX;
         index = file.cache.next(index + 1)) {
      const CacheEntry& entry = *file.cache.find(index);
      hash.add(index, entry.pfn, entry.swap_slot);
      if (!entry.swapped()) add_page(hash, machine.pages, entry.pfn);
    }
  }
}

void add_swap(Hash& hash, const Machine& machine) {
  hash.add(machine.swap.size());
  for (const SwapSlot& slot : machine.swap) {
    hash.add(slot.count, slot.cached);
    if (slot.cached) add_page(hash, machine.pages, slot.cached);
  }
}

void add_uffds(Hash& hash, const Machine& machine) {
  hash.add(machine.uffds.size());
  for (const UffdContext& ctx : machine.uffds) {
    hash.add(ctx.features,
             u64(ctx.api_done) | u64(ctx.user_mode_only) << 1 | u64(ctx.closed) << 2 |
                 u64(ctx.mm == nullptr) << 3,
             ctx.mmap_changing, ctx.queue.size());
    for (const UffdMsg& message : ctx.queue) add_message(hash, message);
  }
}

}  // namespace

void add_message(Hash& hash, const UffdMsg& message) {
  hash.add(u64(message.event), message.flags, message.address, message.to, message.length,
           message.child, message.thread);
}

u64 add_state(Hash& hash, const Machine& machine, Scope scope) {
  hash.add(machine.mms().size(), machine.pages.in_use());
  u64 violations = 0;
  for (const AddressSpace* mm : machine.mms()) violations |= add_space(hash, *mm, scope);
  add_files(hash, machine);
  add_swap(hash, machine);
  add_uffds(hash, machine);
  return violations;
}

u64 entries_hash(const Machine& machine) {
  Hash hash;
  for (const AddressSpace* mm : machine.mms()) {
    const u64 limit = mm->task_size() + PAGE_SIZE;
    u64 last = 0;  // runs of equal entries count as one, however tables are shared
    for (u64 addr = 0; addr < limit;) {
      const Extent at = mm->tables.extent(addr, limit);
      const u64 step = at.uniform ? at.end - addr : PAGE_SIZE;
      for (u64 i = 0; addr < at.end; addr += step, ++i) {
        const u64 word = at.level == PTE_LEVEL ? at.entry[i] : 0;
        if (word != last) hash.add(addr, word);
        last = word;
      }
    }
    hash.add(limit, last);
  }
  return hash.value();
}

u64 state_hash(const Machine& machine) {
  Hash hash;
  (void)add_state(hash, machine, Scope::everywhere);
  return hash.value();
}

}  // namespace ptwalk::fuzz
