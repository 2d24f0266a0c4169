// userfaultfd(2), registration and write protection. Models fs/userfaultfd.c (userfaultfd_api,
// _register, _unregister, _writeprotect, handle_userfault) and
// mm/userfaultfd.c:mwriteprotect_range, v5.12 with the v2 series, v6.1, v6.12, v6.18. Waiting
// threads are pending faults; hugetlb PMD sharing and user_faultfd privileges are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"
#include "ptwalk/plan.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk {

std::size_t PendingFaults::lower(u64 page) const {
  const auto at = std::lower_bound(faults_.begin(), faults_.end(), page,
                                   [](const PendingFault& f, u64 a) { return f.address < a; });
  return std::size_t(at - faults_.begin());
}

const PendingFault* PendingFaults::search(u64 page) const {
  const std::size_t i = lower(page);
  return i < faults_.size() && faults_[i].address == page ? &faults_[i] : nullptr;
}

std::span<PendingFault> PendingFaults::edit(u64 start, u64 end) {
  const std::size_t first = lower(start), last = lower(end);
  if (first < last) will_change();
  return std::span(faults_).subspan(first, last - first);
}

void PendingFaults::set(const PendingFault& fault) {
  will_change();
  const std::size_t i = lower(fault.address);
  if (i < faults_.size() && faults_[i].address == fault.address)
    faults_[i] = fault;
  else
    faults_.insert(faults_.begin() + std::ptrdiff_t(i), fault);
}

void PendingFaults::erase(u64 page) {
  if (!find(page)) return;
  will_change();
  faults_.erase(faults_.begin() + std::ptrdiff_t(lower(page)));
}

void PendingFaults::will_change() {
  if (!must_save(undo_, stamp_)) return;
  undo_->save(
      this,
      [](void* self, UndoLog::Bytes saved) {
        assign(static_cast<PendingFaults*>(self)->faults_, saved);
      },
      bytes_of(faults_));
}

void UffdContext::save(UndoLog& undo) {
  undo.save(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& ctx = *static_cast<UffdContext*>(self);
        static_cast<UffdState&>(ctx) = value_of<UffdState>(saved);
        assign(ctx.queue, saved.subspan(sizeof(UffdState)));
      },
      bytes_of(static_cast<const UffdState&>(*this)), bytes_of(queue));
}

namespace {

constexpr u64 BASE_IOCTLS = 0xdc;                   // WAKE COPY ZEROPAGE WRITEPROTECT CONTINUE
constexpr u64 NO_HUGETLB_IOCTLS = 1 << 4 | 1 << 5;  // ZEROPAGE, MOVE
constexpr u64 WP_IOCTL = 1 << 6, CONTINUE_IOCTL = 1 << 7, MOVE_IOCTL = 1 << 5,
              POISON_IOCTL = 1 << 8;

u64 mode_to_vm_flags(u64 mode) {
  return (mode & UFFDIO_REGISTER_MODE_MISSING ? VM_UFFD_MISSING : 0) |
         (mode & UFFDIO_REGISTER_MODE_WP ? VM_UFFD_WP : 0) |
         (mode & UFFDIO_REGISTER_MODE_MINOR ? VM_UFFD_MINOR : 0);
}

/// vma_can_userfault(): may a VMA of this backing be registered with these modes?
bool can_userfault(const Profile& p, const Vma& vma, u64 uffd_flags, bool wp_async) {
  if (vma.kind == VmaKind::hugetlb) return p.wp_file_backed || !(uffd_flags & VM_UFFD_WP);
  if (vma.flags & VM_SPECIAL) return false;
  const bool shmem = vma.kind == VmaKind::shmem;
  if ((uffd_flags & VM_UFFD_MINOR) && !(shmem && p.minor_shmem)) return false;
  if (wp_async && uffd_flags == VM_UFFD_WP) return true;
  if ((uffd_flags & VM_UFFD_WP) && !p.wp_file_backed) return vma.anonymous();
  return vma.anonymous() || shmem;
}

/// The ioctls that UFFDIO_REGISTER reports for the range.
u64 range_ioctls(const Profile& p, u64 mode, bool any_hugetlb) {
  u64 ioctls = BASE_IOCTLS;
  if (p.poison_ioctl) ioctls |= POISON_IOCTL;
  if (p.move_ioctl) ioctls |= MOVE_IOCTL;
  if (any_hugetlb) ioctls &= ~NO_HUGETLB_IOCTLS;
  if (!(mode & UFFDIO_REGISTER_MODE_WP)) ioctls &= ~WP_IOCTL;
  if (!(mode & UFFDIO_REGISTER_MODE_MINOR)) ioctls &= ~CONTINUE_IOCTL;
  return ioctls;
}

/// Features that every modelled kernel has. (UFFD_API_FEATURES of the series' base)
constexpr u64 OLDEST_FEATURES = 0x3ff;

}  // namespace

Result<UffdId> AddressSpace::userfaultfd(u64 features, bool user_mode_only) {
  const Profile& p = profile();
  UffdContext& ctx = machine->uffds.add();
  ctx.mm = this;
  ctx.user_mode_only = user_mode_only;
  const UffdId id = UffdId(machine->uffds.size()) - 1;
  if (features & ~OLDEST_FEATURES) cover(Branch::rule_uffd_features);
  if (features & ~p.uffd_features)
    return {id, {Cause::bad_feature, "UFFDIO_API", features, p.uffd_features}};
  if (features & UFFD_FEATURE_WP_ASYNC) features |= UFFD_FEATURE_WP_UNPOPULATED;
  ctx.features = features;
  ctx.api_done = true;
  return {id, {}};
}

void AddressSpace::send(UffdId ctx, const UffdMsg& message) {
  if (machine->uffds[u64(ctx)].closed) return;
  UffdContext& target = machine->uffds.edit(u64(ctx));
  if (message.event != UffdEvent::pagefault) ++target.mmap_changing;
  target.queue.push_back(message);
}

Result<u64> AddressSpace::uffd_register(UffdId id, u64 start, u64 length, u64 mode) {
  const char* const call = "UFFDIO_REGISTER";
  const auto fail = [&](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Result<u64>{0, {cause, call, a, b, c}};
  };
  const Profile& p = profile();
  if (Error e = check_context(*machine, id, call)) return {0, e};
  if (mode == 0 || (mode & ~7ull)) return fail(Cause::bad_mode, mode);
  if (Error e = check_range(*this, call, start, length)) return {0, e};
  const u64 end = start + length;
  const UffdContext& ctx = machine->uffds[u64(id)];
  const bool wp_async = ctx.features & UFFD_FEATURE_WP_ASYNC;
  const u64 uffd_flags = mode_to_vm_flags(mode);
  if (!vmas.first_intersecting(start, end)) {
    Error e{Cause::no_vma_einval, call, start, end};
    return {0, e};
  }
  bool any_hugetlb = false;
  for (VmaList::Index i = vmas.lower(start); i < vmas.all().size() && vmas.all()[i].start < end;
       ++i) {
    const Vma& vma = vmas.all()[i];
    if ((uffd_flags & VM_UFFD_WP) && !vma.anonymous()) cover(Branch::rule_wp_file_backed);
    if ((uffd_flags & VM_UFFD_MINOR) && vma.kind == VmaKind::shmem) cover(Branch::rule_minor_shmem);
    if (!can_userfault(p, vma, uffd_flags, wp_async))
      return fail(Cause::wrong_backing, vma.start, vma.end, vma.flags);
    if (!(vma.flags & VM_MAYWRITE)) return fail(Cause::no_may_write, vma.start, vma.end, vma.flags);
    if (vma.kind == VmaKind::hugetlb) {
      any_hugetlb = true;
      const u64 lo = std::max(start, vma.start), hi = std::min(end, vma.end);
      if (!is_aligned(lo | hi, PMD_SIZE)) return fail(Cause::huge_unaligned, lo, hi - lo);
    }
    if (vma.uffd != NO_UFFD && vma.uffd != id)
      return fail(Cause::owned_by_other, vma.start, vma.end, vma.flags);
  }
  for (u64 at = start; at < end;) {
    const Vma* found = vmas.first_intersecting(at, end);
    if (!found) break;
    at = std::max(at, found->start);
    const u64 piece_end = std::min(found->end, end);
    if (found->uffd != id || (found->flags & uffd_flags) != uffd_flags) {
      if (split_would_exceed(at, piece_end)) return fail(Cause::map_count);
      set_uffd(at, piece_end, id, uffd_flags);
    }
    at = piece_end;
  }
  return {range_ioctls(p, mode, any_hugetlb), {}};
}

void AddressSpace::set_uffd(u64 start, u64 end, UffdId id, u64 uffd_flags) {
  const Profile& p = profile();
  const bool starts_inside = vmas.find(start)->start < start;
  const VmaList::Index i = split_off(start, end);
  Vma& vma = vmas.edit(i);
  const bool wp_changes = (vma.flags ^ uffd_flags) & VM_UFFD_WP;
  cover(!uffd_flags                 ? Branch::unregistered
        : vma.flags & VM_UFFD_FLAGS ? Branch::reregistered
                                    : Branch::registered);
  vma.flags = (vma.flags & ~VM_UFFD_FLAGS) | uffd_flags;
  vma.uffd = id;
  if (starts_inside) cover(Branch::rule_register_merges_next);
  if (wp_changes) cover_writenotify(vma);
  if (wp_changes && vma.shared() && p.writenotify_uffd_wp) vma.page_prot = vma_page_prot(p, vma);
  vmas.merge(i, p, p.register_merges_next || !starts_inside);
}

void AddressSpace::clear_uffd(u64 start, u64 end) {
  const Vma vma = *vmas.find(start);
  ProtectResult account;  // nobody asks for it
  if (vma.uffd_wp()) cover(Branch::rule_unregister_resolves);
  if (vma.uffd_wp() && profile().unregister_resolves && !planted(Mutant::unregister_keeps_bits))
    (void)uffd_wp_range(vma, start, end, false, account);
  // userfaultfd_unregister() wakes only where faults wait for a missing page.
  if (vma.flags & VM_UFFD_MISSING) wake_range(vma.uffd, start, end);
  set_uffd(start, end, NO_UFFD, 0);
}

Error AddressSpace::uffd_unregister(UffdId id, u64 start, u64 length) {
  const char* const call = "UFFDIO_UNREGISTER";
  const Profile& p = profile();
  if (Error e = check_context(*machine, id, call)) return e;
  if (Error e = check_range(*this, call, start, length)) return e;
  const u64 end = start + length;
  const bool wp_async = machine->uffds[u64(id)].features & UFFD_FEATURE_WP_ASYNC;
  if (!vmas.first_intersecting(start, end)) return {Cause::no_vma_einval, call, start, end};
  for (VmaList::Index i = vmas.lower(start); i < vmas.all().size() && vmas.all()[i].start < end;
       ++i) {
    const Vma& vma = vmas.all()[i];
    if (vma.uffd != NO_UFFD && vma.uffd != id) cover(Branch::rule_unregister_checks_ctx);
    if (p.unregister_checks_ctx && vma.uffd != NO_UFFD && vma.uffd != id)
      return {Cause::not_registered_einval, call, vma.start, vma.end, vma.flags};
    if (!can_userfault(p, vma, vma.flags & VM_UFFD_FLAGS, wp_async))
      return {Cause::wrong_backing, call, vma.start, vma.end, vma.flags};
  }
  for (u64 at = start; at < end;) {
    const Vma* found = vmas.first_intersecting(at, end);
    if (!found) break;
    at = std::max(at, found->start);
    const u64 piece_end = std::min(found->end, end);
    if (found->uffd != NO_UFFD) {
      if (split_would_exceed(at, piece_end)) return {Cause::map_count, call};
      clear_uffd(at, piece_end);
    }
    at = piece_end;
  }
  return {};
}

void AddressSpace::uffd_close(UffdId id) {
  if (machine->uffds[u64(id)].closed) return;
  for (AddressSpace* mm : machine->mms()) {
    for (u64 at = 0;;) {
      const auto& all = mm->vmas.all();
      const auto vma = std::find_if(all.begin(), all.end(),
                                    [&](const Vma& v) { return v.end > at && v.uffd == id; });
      if (vma == all.end()) break;
      at = vma->end;
      mm->clear_uffd(vma->start, vma->end);
    }
  }
  for (AddressSpace* mm : machine->mms()) mm->wake_range(id, 0, ~0ull);
  UffdContext& ctx = machine->uffds.edit(u64(id));
  ctx.closed = true;
  ctx.queue.clear();
  ctx.mmap_changing = 0;
}

namespace {

/// What UFFDIO_WRITEPROTECT asks change_protection() for.
struct WpRequest {
  u64 newprot;
  u32 cp_flags;
};

WpRequest wp_request(const Profile& p, const Vma& vma, bool protect) {
  u32 cp_flags = protect ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
  if (!protect && p.wp_upgrades && vma_wants_manual_pte_write_upgrade(p, vma))
    cp_flags |= MM_CP_TRY_CHANGE_WRITABLE;
  // Up to 6.1 the word is the flags' own, write-notify ignored; later it is vm_page_prot.
  const u64 newprot = !p.wp_table_word ? vma.page_prot
                      : protect        ? vm_get_page_prot(vma.flags & ~VM_WRITE)
                                       : vm_get_page_prot(vma.flags);
  return {newprot, cp_flags};
}

}  // namespace

Error AddressSpace::uffd_wp_range(const Vma& vma, u64 start, u64 end, bool protect,
                                  ProtectResult& account) {
  const WpRequest request = wp_request(profile(), vma, protect);
  if (!protect && vma.flags & VM_WRITE) cover(Branch::rule_wp_upgrades);
  if (vma.shared() && vma.page_prot != vm_get_page_prot(vma.flags))
    cover(Branch::rule_wp_table_word);
  return ptwalk::change_protection(*this, vma, {start, end}, request.newprot, request.cp_flags,
                                   account);
}

LeafPlan AddressSpace::uffd_wp_plan(const Vma& vma, bool protect) const {
  const WpRequest request = wp_request(profile(), vma, protect);
  return compile_plan(profile(), vma, request.newprot, request.cp_flags,
                      machine->uffd_features(vma.uffd), users);
}

Result<ProtectResult> AddressSpace::uffd_writeprotect(UffdId id, u64 start, u64 length, u64 mode) {
  Result<ProtectResult> out;
  out.error = writeprotect(id, start, length, mode, out.value);
  return out;
}

Error AddressSpace::writeprotect(UffdId id, u64 start, u64 length, u64 mode,
                                 ProtectResult& account) {
  const char* const call = "UFFDIO_WRITEPROTECT";
  const auto fail = [&](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Error{cause, call, a, b, c};
  };
  const Profile& p = profile();
  if (Error e = check_context(*machine, id, call)) return e;
  if (machine->uffds[u64(id)].mmap_changing && !planted(Mutant::changing_ignored))
    return fail(Cause::mmap_changing);
  if (Error e = check_range(*this, call, start, length)) return e;
  const bool protect = mode & UFFDIO_WRITEPROTECT_MODE_WP;
  const bool dontwake = mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  if ((mode & ~3ull) || (protect && dontwake)) return fail(Cause::bad_mode, mode);
  const u64 end = start + length;
  const Vma* vma = vmas.first_intersecting(start, end);
  const bool whole = vma && vma->start <= start && end <= vma->end;
  if (vma && !whole) cover(Branch::rule_wp_one_vma);
  if (p.wp_one_vma) {
    if (!whole) return fail(Cause::one_vma_rule, start, end);
    if (vma->uffd == NO_UFFD)
      return fail(Cause::not_registered_wp, vma->start, vma->end, vma->flags);
  } else if (!vma) {
    return fail(Cause::no_vma, start, end);
  }
  if (protect)
    if (Error e = need_tables_for_change(call, start, end)) return e;
  for (u64 at = start; vma; vma = at < end ? vmas.first_intersecting(at, end) : nullptr) {
    if (vma->uffd_wp() && !vma->anonymous()) cover(Branch::rule_wp_file_backed);
    if (!vma->uffd_wp() || (!p.wp_file_backed && !vma->anonymous()))
      return fail(Cause::not_registered_wp, vma->start, vma->end, vma->flags);
    if (vma->kind == VmaKind::hugetlb)
      return fail(is_aligned(start | length, PMD_SIZE) ? Cause::huge_fault : Cause::huge_unaligned,
                  start, length);
    at = std::max(at, vma->start);
    const u64 piece_end = std::min(vma->end, end);
    if (Error e = uffd_wp_range(*vma, at, piece_end, protect, account))
      return fail(e.cause, e.a, e.b, e.c);
    at = piece_end;
  }
  if (!protect && !dontwake && !planted(Mutant::resolve_wakes_nobody)) wake_range(id, start, end);
  return {};
}

/// A waiter that is woken takes its message along if nobody has read it. (fault_pending_wqh)
void AddressSpace::wake(PendingFault& fault) {
  cover(Branch::woken);
  fault.woken = true;
  auto& queue = machine->uffds.edit(u64(fault.uffd)).queue;
  const auto unread = std::find_if(queue.begin(), queue.end(), [&](const UffdMsg& message) {
    return message.event == UffdEvent::pagefault && message.address == fault.message.address &&
           message.flags == fault.message.flags;
  });
  if (unread != queue.end()) queue.erase(unread);
}

void AddressSpace::wake_range(UffdId id, u64 start, u64 end) {
  if (pending.all().empty()) return;
  for (PendingFault& fault : pending.edit(start, end))
    if (fault.uffd == id && !fault.woken) wake(fault);
}

Error AddressSpace::uffd_wake(UffdId id, u64 start, u64 length) {
  if (Error e = check_context(*machine, id, "UFFDIO_WAKE")) return e;
  if (Error e = check_range(*this, "UFFDIO_WAKE", start, length)) return e;
  wake_range(id, start, start + length);
  return {};
}

AddressSpace::Fault AddressSpace::handle_userfault(const Vma& vma, const FaultRequest& request,
                                                   u64 reason) {
  if (vma.uffd == NO_UFFD) return Fault::sigbus;
  const UffdContext& ctx = machine->uffds[u64(vma.uffd)];
  if (ctx.features & UFFD_FEATURE_SIGBUS) {
    cover(Branch::message_sigbus);
    return Fault::sigbus;
  }
  if (request.nowait || (ctx.user_mode_only && request.kernel)) return Fault::sigbus;
  const u64 page = align_down(request.addr, PAGE_SIZE);
  UffdMsg message{.event = UffdEvent::pagefault};
  message.address = ctx.features & UFFD_FEATURE_EXACT_ADDRESS ? request.addr : page;
  message.flags =
      (request.write ? UFFD_PAGEFAULT_FLAG_WRITE : 0) |
      (reason == VM_UFFD_WP && !planted(Mutant::message_without_wp) ? UFFD_PAGEFAULT_FLAG_WP : 0) |
      (reason == VM_UFFD_MINOR ? UFFD_PAGEFAULT_FLAG_MINOR : 0);
  if (ctx.features & UFFD_FEATURE_THREAD_ID) message.thread = request.thread;
  cover(reason == VM_UFFD_WP      ? Branch::message_wp
        : reason == VM_UFFD_MINOR ? Branch::message_minor
                                  : Branch::message_missing);
  pending.set({.address = page, .write = request.write, .uffd = vma.uffd, .message = message});
  send(vma.uffd, message);
  return Fault::blocked;
}

}  // namespace ptwalk
