#include "albireo/amx.h"

#include <cstring>

#include "albireo/system.h"

namespace albireo {
namespace {

std::string refusal(bool is_saved) {
  if (!is_saved) return "the operating system does not save tile registers";
  if (const int error = request_tiles())
    return std::string("the operating system refuses tile registers to this process: ") + strerror(error);
  std::string difference = first_difference("amx", "avx512vnni");
  if (difference.empty()) difference = attention_difference("amx", "avx512bf16");
  return difference.empty() ? "" : "its self-test failed: " + difference;
}

}  // namespace

const std::string& amx_refusal(bool is_saved) {
  static const std::string found = refusal(is_saved);
  return found;
}

}  // namespace albireo
