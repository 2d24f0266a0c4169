// userfaultfd contexts, features, messages and pending faults. Models fs/userfaultfd.c and
// include/uapi/linux/userfaultfd.h (v5.12 to v6.18). Nothing sleeps: a fault that would wait in
// handle_userfault() is returned as blocked, and the next access to its page is the retry.
#pragma once

#include <span>
#include <vector>

#include "ptwalk/vma.hpp"

namespace ptwalk {

inline constexpr u64 UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1 << 0;
inline constexpr u64 UFFD_FEATURE_EVENT_FORK = 1 << 1;
inline constexpr u64 UFFD_FEATURE_EVENT_REMAP = 1 << 2;
inline constexpr u64 UFFD_FEATURE_EVENT_REMOVE = 1 << 3;
inline constexpr u64 UFFD_FEATURE_EVENT_UNMAP = 1 << 6;
inline constexpr u64 UFFD_FEATURE_SIGBUS = 1 << 7;
inline constexpr u64 UFFD_FEATURE_THREAD_ID = 1 << 8;
inline constexpr u64 UFFD_FEATURE_EXACT_ADDRESS = 1 << 11;
inline constexpr u64 UFFD_FEATURE_WP_UNPOPULATED = 1 << 13;
inline constexpr u64 UFFD_FEATURE_WP_ASYNC = 1 << 15;

inline constexpr u64 UFFDIO_REGISTER_MODE_MISSING = 1;
inline constexpr u64 UFFDIO_REGISTER_MODE_WP = 2;
inline constexpr u64 UFFDIO_REGISTER_MODE_MINOR = 4;

inline constexpr u64 UFFDIO_WRITEPROTECT_MODE_WP = 1;
inline constexpr u64 UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 2;

inline constexpr u64 UFFD_PAGEFAULT_FLAG_WRITE = 1;
inline constexpr u64 UFFD_PAGEFAULT_FLAG_WP = 2;
inline constexpr u64 UFFD_PAGEFAULT_FLAG_MINOR = 4;

/// Event numbers of struct uffd_msg.
enum class UffdEvent : u8 {
  pagefault = 0x12,
  fork = 0x13,
  remap = 0x14,
  remove = 0x15,
  unmap = 0x16
};

struct UffdMsg {
  UffdEvent event = UffdEvent::pagefault;
  u64 flags = 0;           ///< UFFD_PAGEFAULT_FLAG_*
  u64 address = 0;         ///< fault address; remap: from; remove, unmap: start
  u64 to = 0;              ///< remap: to; remove, unmap: end
  u64 length = 0;          ///< remap
  UffdId child = NO_UFFD;  ///< fork: the child's context
  u32 thread = 0;          ///< page fault: the thread that waits, with THREAD_ID
};

class AddressSpace;

/// A fault that waits in handle_userfault().
struct PendingFault {
  u64 address = 0;  ///< page aligned
  bool write = false;
  UffdId uffd = NO_UFFD;
  UffdMsg message{};
  bool woken = false;  ///< a wake reached it; the retry is the next access to its page
};

/// The pending faults of an address space, at most one a page, in the order of addresses.
class PendingFaults {
 public:
  explicit PendingFaults(UndoLog* undo = nullptr) : undo_(undo), stamp_(epoch_of(undo)) {}
  [[nodiscard]] const std::vector<PendingFault>& all() const { return faults_; }
  /// The one at that page, or nullptr.
  [[nodiscard]] const PendingFault* find(u64 page) const {
    return faults_.empty() ? nullptr : search(page);
  }
  /// Those of [start, end), to be changed in all but their address.
  [[nodiscard]] std::span<PendingFault> edit(u64 start, u64 end);
  /// Puts a fault at its page, in place of one that is there.
  void set(const PendingFault& fault);
  void erase(u64 page);

 private:
  [[nodiscard]] std::size_t lower(u64 page) const;
  [[nodiscard]] const PendingFault* search(u64 page) const;
  void will_change();

  UndoLog* undo_;
  std::vector<PendingFault> faults_;
  u64 stamp_;
};

/// What a userfaultfd_ctx is, beside its messages.
struct UffdState {
  AddressSpace* mm = nullptr;  ///< nullptr: the address space is gone
  u64 features = 0;
  /// Event messages not read yet: while there is one, ioctls say EAGAIN. (mmap_changing)
  u32 mmap_changing = 0;
  bool api_done = false;
  bool user_mode_only = false;  ///< UFFD_USER_MODE_ONLY
  bool closed = false;
};

/// One userfaultfd_ctx.
struct UffdContext : UffdState {
  explicit UffdContext(UndoLog*) {}

  std::vector<UffdMsg> queue;  ///< oldest first
  u64 stamp = 0;

  void save(UndoLog& undo);
  void reset() {
    static_cast<UffdState&>(*this) = {};
    queue.clear();
  }
};

}  // namespace ptwalk
