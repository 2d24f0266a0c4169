// Address space for table frames that no arena uses now, kept with the memory behind it: fresh
// memory is dearer than any loop over it, so a new machine takes over the warm frames of an old
// one. Has no kernel counterpart.
#pragma once

#include <mutex>
#include <vector>

#include "ptwalk/types.hpp"

namespace ptwalk {

/// One reserved mapping of frames. Those from `touched` on are zero and cost no memory.
struct Reservation {
  u64* base = nullptr;
  u64 frames = 0;
  u64 touched = 0;
};

class FrameCache {
 public:
  /// Frames of a full-size reservation: 64 GiB, or 32 TiB of dense 4 KiB mappings.
  static constexpr u64 MAX_FRAMES = 1ull << 24;
  /// Memory that the cache keeps, in frames (512 MiB), and reservations.
  static constexpr u64 MAX_WARM = 1ull << 17;
  static constexpr std::size_t MAX_KEPT = 8;

  FrameCache() = default;
  ~FrameCache() { trim(); }
  FrameCache(const FrameCache&) = delete;
  FrameCache& operator=(const FrameCache&) = delete;

  /// The one that every arena uses unless it is given another. Usable in a forked child.
  static FrameCache& shared();

  /// A kept reservation, or a new one: of MAX_FRAMES, or smaller where that is refused
  /// (RLIMIT_AS). Throws std::bad_alloc where not even 2 MiB can be had.
  Reservation take();
  /// Keeps a reservation for the next take(), and as much of its memory as MAX_WARM allows.
  void give(Reservation reservation);
  /// Returns everything kept to the system; the bytes of memory.
  u64 trim();

 private:
  std::mutex mutex_;
  std::vector<Reservation> kept_;
};

/// Gives the memory of frames [first, last) back to the system; they read as zero.
void discard_frames(u64* base, u64 first, u64 last);

}  // namespace ptwalk
