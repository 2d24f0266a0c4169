// The parts of the page-fault handler that fault.cpp dispatches to; not for callers of the library.
// Each models the function of mm/memory.c that it is named after (v6.18, with what earlier kernels
// do differently read from the profile).
#pragma once

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {

/// One fault on its way: the VMA, the page and the entry as the handler first read it.
struct FaultContext {
  AddressSpace& mm;
  const Vma& vma;
  AddressSpace::FaultRequest request;
  u64 addr = 0;  ///< page aligned
  u64 old = 0;   ///< the entry; 0 where no PTE table exists

  [[nodiscard]] const Profile& profile() const { return mm.profile(); }
  void cover(Branch branch) const { mm.cover(branch); }
  /// The slot of the entry, tables made as needed; nullptr: out of memory.
  [[nodiscard]] u64* slot() const { return mm.tables.ensure(addr, PTE_LEVEL); }
  /// vmf_orig_pte_uffd_wp(): the fault came through a marker, so the page comes in armed.
  [[nodiscard]] bool armed() const {
    return profile().is_uffd_wp_marker(old) && !planted(Mutant::fault_forgets_marker);
  }
  /// The entry of `pfn` under the VMA's protection, dirty and writable for a store, armed if need
  /// be.
  [[nodiscard]] u64 make_entry(Pfn pfn) const;
};

using Fault = AddressSpace::Fault;

Fault do_anonymous_page(FaultContext& vmf);
/// do_read_fault, do_cow_fault and do_shared_fault.
Fault do_fault(FaultContext& vmf);
/// Markers, real swap, migration and the rest of the swap format.
Fault do_swap_page(FaultContext& vmf);
Fault do_wp_page(FaultContext& vmf);

/// vm_ops->fault: the file's page for this address, brought in if need be.
Fault file_fault(const FaultContext& vmf, Pfn& page);
/// wp_can_reuse_anon_folio(): nothing else can reach the page.
bool can_reuse_anon(Machine& machine, Pfn pfn);

}  // namespace ptwalk
