#include "ptwalk/fuzz/report.hpp"

#include <cerrno>
#include <cstdio>

#include "ptwalk/fuzz/violations.hpp"

namespace ptwalk::fuzz {
namespace {

std::string hex(u64 value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

constexpr std::pair<int, const char*> ERRNO_NAMES[] = {
    {0, "InvalidArgument"},  // what no system call judges
    {EPERM, "EPERM"},         {ENOENT, "ENOENT"},       {EINTR, "EINTR"},   {EBADF, "EBADF"},
    {EAGAIN, "EAGAIN"},       {ENOMEM, "ENOMEM"},       {EACCES, "EACCES"}, {EFAULT, "EFAULT"},
    {EBUSY, "EBUSY"},         {EEXIST, "EEXIST"},       {EINVAL, "EINVAL"}, {ENOTTY, "ENOTTY"},
    {EOVERFLOW, "EOVERFLOW"}, {EHWPOISON, "EHWPOISON"},
};

std::string errno_name(const Error& error) {
  const int number = errno_of(error.cause);
  for (const auto& [known, name] : ERRNO_NAMES)
    if (known == number) return name;
  return "errno " + std::to_string(number);
}

std::string text_of(const UffdMsg& message) {
  std::string text;
  switch (message.event) {
    case UffdEvent::pagefault: {
      text = "pagefault";
      if (message.flags & UFFD_PAGEFAULT_FLAG_WRITE) text += " WRITE";
      if (message.flags & UFFD_PAGEFAULT_FLAG_WP) text += " WP";
      if (message.flags & UFFD_PAGEFAULT_FLAG_MINOR) text += " MINOR";
      return text + " " + hex(message.address);
    }
    case UffdEvent::fork: return "fork";
    case UffdEvent::remap:
      return "remap " + hex(message.address) + " to " + hex(message.to) + " length " +
             hex(message.length);
    case UffdEvent::remove: text = "remove"; break;
    case UffdEvent::unmap: text = "unmap"; break;
  }
  return text + " " + hex(message.address) + "-" + hex(message.to);
}

std::string text_of(u8 outcome, int signo, int code) {
  if (outcome == u8(Outcome::done)) return "done";
  if (outcome == u8(Outcome::blocked)) return "blocked";
  return "signal " + std::to_string(signo) + " code " + std::to_string(code);
}

/// Fields of a ProtectResult by name, those that are sums.
constexpr std::pair<const char*, u64 ProtectResult::*> SUMS[] = {
    {"pages", &ProtectResult::pages},
    {"none_to_marker", &ProtectResult::none_to_marker},
    {"marker_to_none", &ProtectResult::marker_to_none},
    {"present", &ProtectResult::present},
    {"swap", &ProtectResult::swap},
    {"huge", &ProtectResult::huge},
    {"none_skipped", &ProtectResult::none_skipped},
    {"tables_allocated", &ProtectResult::tables_allocated},
    {"numa_huge_pte_updates", &ProtectResult::numa_huge_pte_updates},
    {"thp_split_pmd", &ProtectResult::thp_split_pmd},
    {"dirtied", &ProtectResult::dirtied},
    {"referenced", &ProtectResult::referenced},
};

/// Whether an account has anything that only huge pages, bad entries and failures bring about.
bool has_rare_parts(const ProtectResult& result) {
  return (result.huge | result.numa_huge_pte_updates | result.thp_split_pmd | result.dirtied |
          result.referenced | u64(result.rss_file)) != 0 ||
         !result.pmd_flush.empty() || !result.bad_cleared.empty() || !result.warnings.empty();
}

void add_rare_parts(Hash& hash, const ProtectResult& result) {
  hash.add(result.huge, result.numa_huge_pte_updates, result.thp_split_pmd, result.dirtied,
           result.referenced, u64(result.rss_file));
  hash.add(result.pmd_flush.size(), result.bad_cleared.size(), result.warnings.size());
  for (const u64 start : result.pmd_flush) hash.add(start);
  for (const BadEntry& bad : result.bad_cleared) hash.add(u64(bad.level), bad.addr);
  for (const Warning warning : result.warnings) hash.add(u64(warning));
}

}  // namespace

void Report::write(bool user_sees_it, const std::string& text) {
  Step& step = steps->back();
  const auto append = [&](std::string& to) { to += (to.empty() ? "" : "; ") + text; };
  append(step.outcome);
  if (user_sees_it) append(step.visible);
}

void Report::skip(const char* why) {
  ended = Ended::nothing;
  digest.add(~0ull);
  visible.add(~0ull);
  if (steps) write(true, std::string("nothing: ") + why);
}

void Report::refuse(const Error& error) {
  digest.add(u64(error.cause), error.a, error.b, error.c);
  visible.add(u64(errno_of(error.cause)) + 1);
  ended = Ended::refused;
  if (error.cause == Cause::fault_repeats) violations |= bit(Violation::fault_repeats);
  if (!steps) return;
  write(true, errno_name(error));
  write(false, describe(error));
}

void Report::count(const char* name, u64 value) {
  digest.add(value);
  if (steps) write(false, std::string(name) + "=" + hex(value));
}

void Report::result(const char* name, u64 value) {
  digest.add(value);
  visible.add(value);
  if (steps) write(true, std::string(name) + "=" + hex(value));
}

void Report::message(const UffdMsg& message) {
  add_message(digest, message);
  visible.add(u64(message.event), message.flags, message.address, message.to, message.length,
              message.thread);
  if (steps) write(true, text_of(message));
}

void Report::access(const AccessResult& result) {
  const u64 word =
      u64(result.outcome) | u64(u32(result.signal.signo)) << 8 | u64(u32(result.signal.code)) << 16;
  digest.add(result.before, result.after, word);
  visible.add(word);
  if (steps) {
    write(true, text_of(u8(result.outcome), result.signal.signo, result.signal.code));
    write(false, hex(result.before) + " to " + hex(result.after));
  }
  if (result.message) message(*result.message);
}

void Report::record(u64 addr, const AccessRecord& record) {
  const u64 word = record.outcome | u64(record.signo) << 8 | u64(record.code) << 16;
  digest.add(record.before, record.after, word);
  visible.add(word);
  if (steps) {
    write(true, hex(addr) + " " + text_of(record.outcome, record.signo, record.code));
    write(false, hex(record.before) + " to " + hex(record.after));
  }
}

void Report::protect(const ProtectResult& result) {
  digest.add(result.pages, result.none_to_marker, result.marker_to_none, result.present,
             result.swap, result.none_skipped, result.flush.start, result.flush.end);
  const bool more = has_rare_parts(result);
  digest.add(result.tables_allocated, result.notifier.size() << 1 | u64(more));
  for (const NotifierStart& start : result.notifier)
    digest.add(start.start | u64(start.kind) << 1 | u64(start.ended), start.end);
  if (more) add_rare_parts(digest, result);
  if (steps) tell(result);
}

void Report::tell(const ProtectResult& result) {
  for (const auto& [name, member] : SUMS)
    if (result.*member) write(false, std::string(name) + "=" + hex(result.*member));
  if (!result.flush.empty())
    write(false, "flush=" + hex(result.flush.start) + "-" + hex(result.flush.end));
}

}  // namespace ptwalk::fuzz
