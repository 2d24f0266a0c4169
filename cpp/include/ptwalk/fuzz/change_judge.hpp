// Judges a change of protection by what it did to every entry of the address space. Slow: it looks
// at all entries before and after. Has no kernel counterpart.
#pragma once

#include <vector>

#include "ptwalk/fuzz/violations.hpp"

namespace ptwalk::fuzz {

enum class ChangeKind : u8 { protect, resolve, mprotect, numa };

struct ChangeRequest {
  ChangeKind kind;
  Range range;
  u64 prot = 0;  ///< of mprotect
};

class ChangeJudge {
 public:
  /// Remembers the entries of `mm`; the change comes next.
  ChangeJudge(const AddressSpace& mm, const ChangeRequest& request);
  /// The violations that the change shows; the error is the one that stopped it half-way.
  [[nodiscard]] u64 judge(const ProtectResult& result, bool stopped) const;
  /// The same for the same wr-protect done again.
  [[nodiscard]] u64 judge_again(const ProtectResult& result) const;

 private:
  /// Pages of one VMA that have one word.
  struct Piece {
    Range range;
    u64 word = 0;
    bool leaf = false;   ///< a huge page's
    bool asked = false;  ///< the request is about them
    Vma vma{};
  };
  [[nodiscard]] std::vector<Piece> pieces() const;
  [[nodiscard]] bool asks_for(const Vma& vma) const;
  [[nodiscard]] bool arms_none(const Vma& vma) const;
  [[nodiscard]] u64 judge_piece(const Piece& before, u64 word, const ProtectResult& result,
                                ProtectResult& seen) const;
  [[nodiscard]] u64 judge_asked(const Piece& before, u64 word) const;
  [[nodiscard]] u64 judge_kinds(u64 before, u64 word) const;

  const AddressSpace& mm_;
  const ChangeRequest request_;
  const std::vector<Piece> before_;
  const u64 tables_;
};

}  // namespace ptwalk::fuzz
