// std::format for compilers that lack it (gcc 12). MLX's C shim uses plain "{}" only, and only in error messages.
#pragma once
#if defined(__cplusplus)
#include <version>
#if defined(__cpp_lib_format)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {
template <typename... Args>
string format(string_view pattern, const Args&... args) {
  ostringstream out;
  [[maybe_unused]] auto until_hole = [&] {
    auto hole = pattern.find("{}");
    out << pattern.substr(0, hole);
    pattern.remove_prefix(hole == string_view::npos ? pattern.size() : hole + 2);
  };
  ((until_hole(), out << args), ...);
  out << pattern;
  return out.str();
}
} // namespace std
#endif
#endif
