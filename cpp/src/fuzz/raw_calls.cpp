// Stores that no system call makes, change_protection() called directly, and failing allocations,
// as operations of programs.
#include <algorithm>

#include "ptwalk/fuzz/run.hpp"

namespace ptwalk::fuzz {

using namespace field;

namespace {

constexpr u64 NX_USER = _PAGE_NX | _PAGE_USER | _PAGE_ACCESSED | _PAGE_PRESENT;
constexpr Pfn NO_FACTS = 0x12345;  ///< a frame that the machine has no facts about
constexpr Pfn FIRST = 1ull << 20;  ///< the frame that the machine hands out first
constexpr Pfn HUGE = 0x40000;
constexpr std::size_t MOST_WORDS = 64;  ///< that one operation stores

/// A swap-format word of that kind, none where the kernel has no such type.
u64 special(const Profile& p, SwpKind kind, u64 offset, u64 flags = 0) {
  const int type = p.swp_type_of(kind);
  return type < 0 ? 0 : make_swp_pte(unsigned(type), offset) | flags;
}

u64 marker(const Profile& p, u64 bits) {
  if (p.marker_format == MarkerFormat::none) return 0;
  return p.make_marker(bits & p.marker_mask);
}

u64 word_of(const Profile& p, std::string_view name) {
  using enum SwpKind;
  const u64 soft_dirty = p.swp_soft_dirty_bit();
  const u64 huge = NX_USER | _PAGE_PSE;
  const std::pair<std::string_view, u64> WORDS[] = {
      {"none", 0},
      {"accessed", _PAGE_ACCESSED},
      {"dirty", _PAGE_DIRTY},
      {"ro", pfn_pte(NO_FACTS, NX_USER)},
      {"rw_dirty", pfn_pte(NO_FACTS, NX_USER | _PAGE_RW | _PAGE_DIRTY)},
      {"armed", pfn_pte(NO_FACTS, NX_USER | _PAGE_UFFD_WP)},
      {"armed_rw", pfn_pte(NO_FACTS, NX_USER | _PAGE_UFFD_WP | _PAGE_RW | _PAGE_DIRTY)},
      {"protnone", pfn_pte(NO_FACTS, PAGE_NONE)},
      {"protnone_armed", pfn_pte(NO_FACTS, PAGE_NONE | _PAGE_UFFD_WP)},
      {"zero_page", pfn_pte(ZERO_PFN, NX_USER | _PAGE_SPECIAL)},
      {"zero_page_armed", pfn_pte(ZERO_PFN, NX_USER | _PAGE_SPECIAL | _PAGE_UFFD_WP)},
      {"special", pfn_pte(NO_FACTS, NX_USER | _PAGE_SPECIAL)},
      {"devmap", pfn_pte(NO_FACTS, NX_USER | _PAGE_SPECIAL | p.devmap_bit)},
      {"pat", pfn_pte(NO_FACTS, NX_USER | _PAGE_PAT)},
      {"pkey5", pfn_pte(NO_FACTS, NX_USER) | 5ull << 59},
      {"not_user", pfn_pte(NO_FACTS, _PAGE_PRESENT | _PAGE_RW)},
      {"frame0_ro", pfn_pte(FIRST, NX_USER)},
      {"frame0_rw", pfn_pte(FIRST, NX_USER | _PAGE_RW | _PAGE_DIRTY)},
      {"frame1_ro", pfn_pte(FIRST + 1, NX_USER)},
      {"frame1_rw", pfn_pte(FIRST + 1, NX_USER | _PAGE_RW)},
      {"frame2_armed", pfn_pte(FIRST + 2, NX_USER | _PAGE_UFFD_WP)},
      {"swap1", make_swp_pte(0, 1)},
      {"swap1_armed", make_swp_pte(0, 1) | _PAGE_SWP_UFFD_WP},
      {"swap1_soft_dirty", make_swp_pte(0, 1) | soft_dirty},
      {"swap1_exclusive", make_swp_pte(0, 1) | (p.swp_exclusive ? _PAGE_SWP_EXCLUSIVE : 0)},
      {"swap2", make_swp_pte(0, 2)},
      {"swap_area3", make_swp_pte(3, 0x1234)},
      {"migration_read", special(p, migration_read, NO_FACTS)},
      {"migration_read_exclusive", special(p, migration_read_exclusive, NO_FACTS)},
      {"migration_write", special(p, migration_write, NO_FACTS)},
      {"migration_write_armed", special(p, migration_write, NO_FACTS, _PAGE_SWP_UFFD_WP)},
      {"migration_write_frame0", special(p, migration_write, FIRST)},
      {"hwpoison", special(p, hwpoison, NO_FACTS)},
      {"device_private_read", special(p, device_private_read, NO_FACTS)},
      {"device_private_write", special(p, device_private_write, NO_FACTS, soft_dirty)},
      {"device_exclusive_read", special(p, device_exclusive_read, NO_FACTS)},
      {"device_exclusive_write", special(p, device_exclusive_write, NO_FACTS)},
      {"marker_wp", marker(p, PTE_MARKER_UFFD_WP)},
      {"marker_poisoned", marker(p, PTE_MARKER_POISONED)},
      {"marker_guard", marker(p, PTE_MARKER_GUARD)},
      {"marker_all", marker(p, ~0ull)},
      {"marker_empty", marker(p, 0)},
      {"special_pte", Profile::SPECIAL_PTE},
      {"swapin_error", special(p, swapin_error, 0)},
      {"huge_ro", pfn_pte(HUGE, huge, PMD_LEVEL)},
      {"huge_rw_dirty", pfn_pte(HUGE, huge | _PAGE_RW | _PAGE_DIRTY, PMD_LEVEL)},
      {"huge_armed", pfn_pte(HUGE, huge | _PAGE_UFFD_WP, PMD_LEVEL)},
      {"huge_protnone", pfn_pte(HUGE, PAGE_NONE | _PAGE_PSE, PMD_LEVEL)},
      {"huge_zero", pfn_pte(HUGE_ZERO_PFN, huge, PMD_LEVEL)},
      {"huge_migration_write", special(p, migration_write, HUGE)},
      {"huge_migration_armed", special(p, migration_write, HUGE, _PAGE_SWP_UFFD_WP)},
      {"huge_1g", pfn_pte(HUGE, huge, PUD_LEVEL)},
      {"bad_table", 0x12345003},
      {"bad_no_accessed", 0x12345047},
      {"all_ones", ~0ull},
  };
  static_assert(std::size(WORDS) == std::tuple_size_v<RawWords>);
  for (const auto& [known, word] : WORDS)
    if (known == name) return word;
  return 0;
}

/// The bits of field::TOGGLE_NAMES that the operation flips.
u64 toggled(const Profile& p, u64 toggles) {
  const u64 BITS[] = {_PAGE_RW,       _PAGE_USER,    _PAGE_ACCESSED,   _PAGE_DIRTY,       _PAGE_PSE,
                      _PAGE_PROTNONE, _PAGE_UFFD_WP, _PAGE_SOFT_DIRTY, p.saved_dirty_bit, _PAGE_NX};
  u64 word = 0;
  for (std::size_t i = 0; i < std::size(BITS); ++i)
    if (toggles >> i & 1) word |= BITS[i];
  return word;
}

u64 word_of(const Run& run, const Op& op) {
  return run.words[WORD(op)] ^ toggled(run.machine().profile, TOGGLE(op));
}

u64 vm_flags_of(u64 bits) {
  constexpr u64 FLAGS[] = {VM_WRITE,  VM_DONTEXPAND, VM_MAYWRITE, VM_UFFD_MISSING,
                           VM_PFNMAP, VM_UFFD_WP,    VM_IO,       VM_SOFTDIRTY};
  u64 flags = 0;
  for (std::size_t i = 0; i < std::size(FLAGS); ++i)
    if (bits >> i & 1) flags |= FLAGS[i];
  return flags;
}

}  // namespace

RawWords raw_words(const Profile& profile) {
  RawWords words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = word_of(profile, WORD_NAMES[i]);
  return words;
}

void run_change_protection(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const Vma* vma = mm.vmas.find(AT(op));
  const u64 WORDS[] = {vma ? vma->page_prot : PAGE_NONE,
                       PAGE_NONE,
                       NX_USER,
                       NX_USER | _PAGE_RW,
                       NX_USER & ~_PAGE_NX,
                       (NX_USER & ~_PAGE_NX) | _PAGE_RW,
                       NX_USER | 5ull << 59,
                       NX_USER | _PAGE_PCD | _PAGE_PWT};
  const auto done =
      mm.change_protection(AT(op), AT(op) + LENGTH(op), WORDS[NEWPROT(op)], u32(CP_FLAGS(op)));
  run.report.end(run.protect(done));
}

void run_set_pte(Run& run, const Op& op) {
  const u64 word = word_of(run, op);
  run.report.end(run.mm(op).set_ptes(AT(op), {&word, 1}));
}

void run_set_ptes(Run& run, const Op& op) {
  std::array<u64, MOST_WORDS> words;
  words.fill(word_of(run, op));
  const u64 nr = std::min<u64>(PAGES(op) >> PAGE_SHIFT, words.size());
  run.report.end(run.mm(op).set_ptes(AT(op), {words.data(), nr}));
}

namespace {

/// "pgd" is the top table, with five levels too; there no operation names a p4d.
Level level_of(const Run& run, const Op& op) {
  const Level level = Level(LEVEL(op)) + PTE_LEVEL;
  return level == P4D_LEVEL ? run.machine().levels : level;
}

}  // namespace

void run_set_entry(Run& run, const Op& op) {
  run.report.end(run.mm(op).set_entry(AT(op), level_of(run, op), word_of(run, op)));
}

void run_alloc_table(Run& run, const Op& op) {
  run.report.end(run.mm(op).alloc_table(AT(op), level_of(run, op), TABLE_FLAGS[TABLE(op)]));
}

void run_set_vm_flags(Run& run, const Op& op) {
  run.report.end(
      run.mm(op).set_vm_flags(AT(op), LENGTH(op), vm_flags_of(ADD(op)), vm_flags_of(REMOVE(op))));
}

void run_load_vma(Run& run, const Op& op) {
  constexpr u64 FLAGS[] = {VM_SHARED | VM_MAYSHARE,
                           VM_LOCKED,
                           VM_NORESERVE,
                           VM_WIPEONFORK,
                           VM_PFNMAP,
                           VM_MIXEDMAP,
                           VM_UFFD_WP,
                           VM_SOFTDIRTY};
  static_assert(std::size(FLAGS) == LOAD_FLAG_NAMES.size());
  const u64 backing = LOAD_BACKING(op), offset = OFFSET(op) << PAGE_SHIFT;
  const u64 start = AT(op), length = LENGTH(op);
  Machine& machine = run.machine();
  Vma vma{.start = start, .end = start + length};
  vma.flags = PROT(op) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;
  for (std::size_t i = 0; i < std::size(FLAGS); ++i)
    if (LOAD_FLAGS(op) >> i & 1) vma.flags |= FLAGS[i];
  if (backing >= LOAD_BACKING_NAMES.size())
    vma.file = run.file(backing - LOAD_BACKING_NAMES.size());
  else if (backing == 1 || backing == 2)
    vma.file =
        machine.create_file(backing == 1 ? FileKind::shmem : FileKind::regular, offset + length);
  if (vma.file != NO_FILE) {
    vma.kind = vma_kind_of(machine.files[u64(vma.file)].kind);
    vma.pgoff = OFFSET(op);
  } else {
    constexpr VmaKind KINDS[] = {VmaKind::anon,    VmaKind::shmem, VmaKind::regular,
                                 VmaKind::hugetlb, VmaKind::dax,   VmaKind::other};
    vma.kind = backing < std::size(KINDS) ? KINDS[backing] : VmaKind::anon;
    vma.pgoff = start >> PAGE_SHIFT;
  }
  run.report.end(run.mm(op).load_vma(vma, ""));
}

void run_load_pages(Run& run, const Op& op) {
  u64 word = word_of(run, op);
  if (FRAME(op) && pte_present(word)) word = pfn_pte(0, word & ~PTE_PFN_MASK);
  std::array<u64, MOST_WORDS> words;
  std::array<u8, MOST_WORDS> facts;
  words.fill(word);
  facts.fill(u8(FACTS(op)));
  const u64 nr = std::min<u64>(PAGES(op) >> PAGE_SHIFT, MOST_WORDS);
  run.report.end(run.mm(op).load_pages(AT(op), {words.data(), nr}, {facts.data(), nr}));
}

void run_fail_table_alloc(Run& run, const Op& op) {
  run.world.fails = run.world.limited || COUNTDOWN(op) != 0;
  run.mm(op).tables.fail_alloc(COUNTDOWN(op));
  run.report.end({});
}

}  // namespace ptwalk::fuzz
