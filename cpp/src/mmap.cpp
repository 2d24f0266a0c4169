// mmap(2) and munmap(2): the checks, the place, the VMA, and what goes when a range goes. Models
// mm/mmap.c:do_mmap, mm/vma.c:do_vmi_munmap and mm/memory.c:free_pgtables (v6.18). The commit
// limit, RLIMIT_AS and stack growth are not modelled; addresses are picked top down without a
// random offset.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

constexpr u64 MAX_LFS_FILESIZE = ~0ull >> 1;
constexpr u32 KNOWN_FLAGS = MAP_SHARED_ | MAP_PRIVATE_ | MAP_FIXED_ | MAP_ANONYMOUS_ | MAP_LOCKED_ |
                            MAP_NORESERVE_ | MAP_POPULATE_ | MAP_FIXED_NOREPLACE_ |
                            0x20000 /*STACK*/;

/// vm_flags of a new mapping; VM_ACCOUNT as accountable_mapping() says.
u64 new_vm_flags(int prot, u32 flags, const File* file, const Config& config) {
  u64 vm = u64(prot) & VM_ACCESS_FLAGS;
  vm |= VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;
  if (flags & MAP_LOCKED_) vm |= VM_LOCKED;
  if (flags & MAP_SHARED_) {
    vm |= VM_SHARED | VM_MAYSHARE;
    if (file && !file->writable) vm &= ~(VM_MAYWRITE | VM_SHARED);
  }
  if (flags & MAP_NORESERVE_) vm |= VM_NORESERVE;
  if ((vm & (VM_NORESERVE | VM_SHARED | VM_WRITE)) == VM_WRITE) vm |= VM_ACCOUNT;
  if (config.mem_soft_dirty) vm |= VM_SOFTDIRTY;
  return vm;
}

}  // namespace

AddressSpace::AddressSpace(std::shared_ptr<Machine> owner)
    : machine(std::move(owner)),
      vmas(&machine->undo),
      tables(machine->shared_tables, machine->profile, machine->levels, &machine->undo),
      pending(&machine->undo),
      born(machine->undo.epoch()) {
  machine->add(this);
}

void AddressSpace::exit() {
  (void)unmap_range(0, ~0ull);  // exit(2) sends no messages
  tables.free_all();
  machine->remove(this);
  for (UffdId id = 0; u64(id) < machine->uffds.size(); ++id)
    if (machine->uffds[u64(id)].mm == this) machine->uffds.edit(u64(id)).mm = nullptr;
}

AddressSpace::~AddressSpace() {
  if (gone) return;
  const auto& all = machine->mms();
  if (std::find(all.begin(), all.end(), this) != all.end()) exit();
  if (born != machine->undo.epoch()) machine->undo.forget(this, sizeof *this);
}

Result<u64> AddressSpace::mmap(u64 addr, u64 length, int prot, u32 flags, FileId file, u64 offset) {
  const auto fail = [](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Result<u64>{0, {cause, "mmap", a, b, c}};
  };
  if (!is_aligned(offset, PAGE_SIZE)) return fail(Cause::offset_unaligned, offset);
  if (!length) return fail(Cause::length_zero);
  const u32 type = flags & (MAP_SHARED_ | MAP_PRIVATE_);
  if (type == 0 || type == (MAP_SHARED_ | MAP_PRIVATE_) || (flags & ~KNOWN_FLAGS))
    return fail(Cause::bad_flags, flags);
  if (prot & ~7) return fail(Cause::bad_prot, u64(prot));
  const u64 end_of_user = task_size();
  if (length > end_of_user) return fail(Cause::length_overflow, addr, length);
  length = align_up(length, PAGE_SIZE);
  if (vmas.all().size() > MAX_MAP_COUNT) return fail(Cause::map_count);
  const bool fixed = flags & (MAP_FIXED_ | MAP_FIXED_NOREPLACE_);
  if (fixed) {
    if (addr > end_of_user - length) return fail(Cause::length_overflow, addr, length);
    if (!is_aligned(addr, PAGE_SIZE)) return fail(Cause::start_unaligned, addr);
    if (addr < MMAP_MIN_ADDR) return fail(Cause::start_below_min, addr, MMAP_MIN_ADDR);
    if ((flags & MAP_FIXED_NOREPLACE_) && vmas.first_intersecting(addr, addr + length))
      return fail(Cause::address_taken, addr, addr + length);
  } else {
    addr = align_down(addr, PAGE_SIZE);  // round_hint_to_min()
    if (addr) addr = std::max(addr, MMAP_MIN_ADDR);
    if (!addr || addr > end_of_user - length || vmas.first_intersecting(addr, addr + length))
      addr = pick_address(length);
    if (!addr) return fail(Cause::no_space, length);
  }
  if (flags & MAP_ANONYMOUS_) file = NO_FILE;
  const File* backing = file == NO_FILE ? nullptr : &machine->files[u64(file)];
  if (!backing && !(flags & MAP_ANONYMOUS_)) return fail(Cause::bad_flags, flags);
  // file_mmap_ok(): of anonymous memory nobody asks the offset.
  if (backing && (offset > MAX_LFS_FILESIZE || length > MAX_LFS_FILESIZE - offset))
    return fail(Cause::offset_overflow, offset, length);
  if (backing && (flags & MAP_SHARED_) && (prot & PROT_WRITE_) && !backing->writable)
    return fail(Cause::file_not_writable);
  if (split_would_exceed(addr, addr + length)) return fail(Cause::map_count);

  const UnmapEvents unmapped = fixed ? unmap_range(addr, addr + length) : UnmapEvents{};
  Vma vma{.start = addr, .end = addr + length, .pgoff = addr >> PAGE_SHIFT};
  vma.flags = new_vm_flags(prot, flags, backing, profile().config);
  cover(Branch::rule_mem_soft_dirty);
  if (!backing && (flags & MAP_SHARED_)) file = machine->create_file(FileKind::shmem, length);
  if (file != NO_FILE) {
    vma.file = file;
    vma.kind = vma_kind_of(machine->files[u64(file)].kind);
    vma.pgoff = backing ? offset >> PAGE_SHIFT : 0;
  }
  vma.page_prot = vma_page_prot(profile(), vma);
  const std::size_t before = vmas.all().size();
  vmas.merge(vmas.insert(vma), profile());
  cover(vmas.all().size() > before ? Branch::mmap_alone : Branch::mmap_merged);
  send(unmapped);
  if (flags & (MAP_POPULATE_ | MAP_LOCKED_)) (void)populate_locked(addr, addr + length, false);
  return {addr, {}};
}

Error AddressSpace::munmap(u64 start, u64 length) {
  const auto fail = [](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Error{cause, "munmap", a, b, c};
  };
  if (!is_aligned(start, PAGE_SIZE)) return fail(Cause::start_unaligned, start);
  if (start > task_size() || length > task_size() - start)
    return fail(Cause::beyond_task_size, start, length, task_size());
  if (!length) return fail(Cause::length_zero);
  const u64 end = start + align_up(length, PAGE_SIZE);
  if (split_would_exceed(start, end)) return fail(Cause::map_count);
  send(unmap_range(start, end));
  return {};
}

u64 AddressSpace::pick_address(u64 length) const {
  u64 top = task_size();
  for (auto vma = vmas.all().rbegin(); vma != vmas.all().rend(); ++vma) {
    if (vma->end <= top && top - vma->end >= length) return top - length;
    top = std::min(top, vma->start);
  }
  return top >= MMAP_MIN_ADDR && top - MMAP_MIN_ADDR >= length ? top - length : 0;
}

Error AddressSpace::need_tables_for_pages(const char* call, u64 start, u64 end) const {
  // Most often there is plenty for all that the range could need, and nothing has to be counted.
  const u64 most = (end - start) / PMD_SIZE * 2 + 2 * u64(tables.levels());
  return need_tables(call,
                     machine->frames.available() >= most ? 0 : tables.frames_to_map(start, end));
}

Error AddressSpace::count_tables_for_change(const char* call, u64 start, u64 end) const {
  const u64 nr_vmas = vmas.lower(end) - vmas.lower(start) + 1;
  return need_tables(call, nr_vmas * 2 * u64(tables.levels()) + (end - start) / level_size(5));
}

VmaList::Index AddressSpace::split_at(u64 addr) {
  const VmaList::Index i = vmas.lower(addr);
  if (i == vmas.all().size() || vmas.all()[i].start >= addr) return i;
  cover(Branch::vma_split);
  return vmas.split(i, addr);
}

VmaList::Index AddressSpace::split_off(u64 start, u64 end) {
  VmaList::Index i = vmas.lower(start);
  if (vmas.all()[i].start < start) {
    cover(Branch::vma_split);
    i = vmas.split(i, start);
  }
  if (vmas.all()[i].end > end) {
    cover(Branch::vma_split);
    vmas.split(i, end);
  }
  return i;
}

void AddressSpace::free_pgtables(u64 start, u64 end, VmaList::Index next) {
  const u64 floor = next > 0 ? vmas.all()[next - 1].end : 0;
  const u64 ceiling = next < vmas.all().size() ? vmas.all()[next].start : 1ull << 57;
  tables.free_range(start, end, floor, ceiling);
}

AddressSpace::UnmapEvents AddressSpace::unmap_range(u64 start, u64 end) {
  UnmapEvents events{.contexts = {}, .range = {start, end}};
  const VmaList::Index first = vmas.lower(start);
  Range gone{};
  for (VmaList::Index i = first; i < vmas.all().size() && vmas.all()[i].start < end; ++i) {
    const Vma& vma = vmas.all()[i];
    const Range part{std::max(vma.start, start), std::min(vma.end, end)};
    machine->coverage.hit(Branch::vma_split, u64(vma.start < start) + u64(end < vma.end));
    gone = {gone.empty() ? part.start : gone.start, part.end};
    zap_range(vma, part.start, part.end, {.drop_marker = true});
    if (vma.uffd == NO_UFFD) continue;
    const bool told = machine->uffds[u64(vma.uffd)].features & UFFD_FEATURE_EVENT_UNMAP;
    auto& to = events.contexts;
    if (told && std::find(to.begin(), to.end(), vma.uffd) == to.end()) to.push_back(vma.uffd);
  }
  if (!gone.empty()) free_pgtables(gone.start, gone.end, vmas.remove(start, end));
  return events;
}

void AddressSpace::send(const UnmapEvents& events) {
  for (UffdId ctx : events.contexts)
    send(ctx, {.event = UffdEvent::unmap, .address = events.range.start, .to = events.range.end});
}

}  // namespace ptwalk
