#include "ptwalk/fuzz/text.hpp"

#include <cstdio>

namespace ptwalk::fuzz {
namespace {

std::string length_text(u64 length) {
  if (length == 0) return "0";
  if (length % PUD_SIZE == 0) return std::to_string(length / PUD_SIZE) + "G";
  if (length % (1 << 20) == 0) return std::to_string(length >> 20) + "M";
  return std::to_string(length >> 10) + "K";
}

std::string place_text(u64 address) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(address));
  return text;
}

std::string flags_text(Names names, u64 value) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (value >> i & 1) text.append(text.empty() ? "" : "|").append(names[i]);
  return text.empty() ? "-" : text;
}

std::string field_text(const Field& field, u64 value) {
  switch (field.role) {
    case Role::number: return std::to_string(value);
    case Role::place: return place_text(value);
    case Role::length:
    case Role::pages: return length_text(value);
    case Role::flags: return flags_text(field.names, value);
    case Role::prot: return {value & 1 ? 'r' : '-', value & 2 ? 'w' : '-', value & 4 ? 'x' : '-'};
    case Role::choice:
    case Role::choice_or_file: break;
  }
  if (value < field.names.size()) return std::string(field.names[value]);
  return "file" + std::to_string(value - field.names.size());
}

}  // namespace

std::string to_text(const Op& op) {
  const Operation& row = operations()[op.op % operations().size()];
  std::string text(row.name), behind;
  for (const Field& field : row.fields) {
    const u64 value = field(op);
    if (field.member != Member::mm)
      text.append(1, ' ').append(field_text(field, value));
    else if (value)
      behind.append(1, ' ').append(field.name).append(1, '=').append(field_text(field, value));
  }
  return text + behind;
}

std::string to_text(std::span<const u8> program) {
  std::string text;
  for (std::size_t i = 0; i < nr_ops(program); ++i)
    text.append(i ? "\n" : "").append(to_text(decode(program, i)));
  return text;
}

}  // namespace ptwalk::fuzz
