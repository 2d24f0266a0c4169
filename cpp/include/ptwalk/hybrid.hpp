// The rules of a profile by name, and hybrids: one kernel with some rules of another. A hybrid that
// behaves as the other kernel names the rule that makes the difference between the two.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ptwalk/profile.hpp"

namespace ptwalk {

/// One field of struct Profile, or one build option.
struct Rule {
  std::string_view name;  ///< as in profile.hpp; an option in the kernel's spelling
  bool (*same)(const Profile& a, const Profile& b);
  void (*take)(Profile& to, const Profile& from);
  /// "yes", "every_level", "0x1ffff"
  std::string (*value)(const Profile& profile);
};

/// Every rule, in the order of profile.hpp; the build options last. `swp_kinds` follows from them.
std::span<const Rule> rules();
/// The rule of that name, or nullptr.
const Rule* find_rule(std::string_view name);

/// Why no kernel can have these rules together, or nothing.
std::string_view contradiction(const Profile& profile);

/// A profile that was asked for by name, or what is wrong with the name.
struct NamedProfile {
  std::optional<Profile> profile;
  std::string wrong;
};
/// A profile of profiles(), or a hybrid by its name: "uffd-wp-v2 with populate, flush of 6.18".
NamedProfile named_profile(std::string_view name);

}  // namespace ptwalk
