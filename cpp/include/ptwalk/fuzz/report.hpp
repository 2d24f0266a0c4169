// What the operations of a program came to: two running hashes, and for people a text. Everything
// enters the digest; what a program in user space would see enters `visible` too, and may be
// compared between kernels. Has no kernel counterpart.
#pragma once

#include <string>
#include <vector>

#include "ptwalk/fuzz/digest.hpp"
#include "ptwalk/fuzz/violations.hpp"

namespace ptwalk::fuzz {

/// One operation in words.
struct Step {
  std::string outcome;  ///< all that is known of it
  std::string visible;  ///< what user space sees of it
};

/// What became of an operation.
enum class Ended : u8 { done, refused, nothing };

class Report {
 public:
  Hash digest, visible;
  u64 violations = 0;                  ///< bits of fuzz::Violation
  Ended ended = Ended::done;           ///< of the operation that began last
  std::vector<Step>* steps = nullptr;  ///< where texts go, if they are wanted

  /// Another operation begins.
  void begin(unsigned op) {
    ended = Ended::done;
    digest.add(op);
    visible.add(op);
    if (steps) steps->emplace_back();
  }
  /// It has nothing to act on.
  void skip(const char* why);
  /// How it ended; the cause and its facts are not visible, the errno is.
  void end(const Error& error) {
    if (error) return refuse(error);
    digest.add(0);
    visible.add(0);
  }
  /// A number that only the digest sees, and one that user space gets.
  void count(const char* name, u64 value);
  void result(const char* name, u64 value);
  void message(const UffdMsg& message);
  void access(const AccessResult& result);
  void record(u64 addr, const AccessRecord& record);
  void protect(const ProtectResult& result);

 private:
  void refuse(const Error& error);
  void tell(const ProtectResult& result);
  void write(bool user_sees_it, const std::string& text);
};

}  // namespace ptwalk::fuzz
