#include "bind/names.h"

#include <stdexcept>

namespace albireo {

DType dtype_of(const std::string& name) {
  if (name == "float32") return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (name == "int8.token") return DType::kInt8Token;
  throw std::invalid_argument("unknown dtype " + name);
}

Encoding encoding_of(const std::string& name) {
  static constexpr struct {
    const char* family;
    DType whole, groups;
  } kFamilies[] = {{"int8", DType::kInt8, DType::kInt8Group},
                   {"int4", DType::kF32, DType::kInt4Group},
                   {"int4p", DType::kF32, DType::kInt4Progressive},
                   {"fp4", DType::kF32, DType::kFp4},
                   {"fp8", DType::kFp8, DType::kFp8}};
  static constexpr const char* kNested[] = {"q2_k",    "q3_k",  "q4_k",    "q5_k",  "q6_k",  "iq4_xs",
                                            "iq3_xxs", "iq3_s", "iq2_xxs", "iq2_s", "iq1_s", "iq1_m"};
  for (int i = 0; i < (int)std::size(kNested); i++) {
    const DType type = (DType)((int)DType::kQ2K + i);
    if (name == kNested[i]) return {type, nested_group(type), is_nested_affine(type)};
  }
  const size_t dot = name.find('.');
  const std::string family = name.substr(0, dot);
  for (const auto& f : kFamilies) {
    if (family != f.family || name == "int8.token") continue;
    if (dot == std::string::npos) return {f.whole, 0, false};
    size_t used = 0;
    const int64_t group = std::stoll(name.substr(dot + 2), &used);
    if (group < 16 || group > 128 || group % 16) throw std::invalid_argument("unknown group of " + name);
    return {f.groups, group, name.ends_with(".affine")};
  }
  return {dtype_of(name), 0, false};
}

DType kv_dtype_of(const std::string& name) {
  if (name == "int8") return DType::kInt8;
  if (name == "fp8") return DType::kFp8;
  return dtype_of(name);
}

Rows rows_of(const std::string& symbol) {
  if (symbol == "T") return Rows::kT;
  if (symbol == "R") return Rows::kR;
  if (symbol == "G") return Rows::kG;
  if (symbol == "S") return Rows::kS;
  if (symbol == "P") return Rows::kP;
  throw std::invalid_argument("unknown row symbol " + symbol);
}

}  // namespace albireo
