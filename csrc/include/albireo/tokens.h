// Activations of kInt8Token: each row, a token, is 8-bit codes and one scale, x[k] = code[k] * scale.
//
//   codes    int8 [round_up(K, 64)], zeros behind K
//   scale    float32
//   sums     float32 [K / 16 + 1] whole numbers: of the codes before 0, 16, 32, ... and before K
//
// A weight's codes are unsigned and have a zero point; what it adds, zero times the sum of a group's activations, is
// taken off with two of these sums.
#pragma once
#include "albireo/types.h"

namespace albireo {

constexpr int64_t kSumStep = 16;
constexpr int64_t token_codes(int64_t k) { return round_up(k, 64); }
constexpr int64_t num_sums(int64_t k) { return ceil_div(k, kSumStep) + 1; }
constexpr int64_t token_row_bytes(int64_t k) { return round_up(token_codes(k) + 4 * (1 + num_sums(k)), 64); }
constexpr int64_t sum_at(int64_t k, int64_t position) { return ceil_div(position < k ? position : k, kSumStep); }

}  // namespace albireo
