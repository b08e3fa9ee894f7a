#include "albireo/probe.h"

#include <algorithm>
#include <chrono>

#include "albireo/cpu_info.h"
#include "albireo/types.h"
#include "simd/tile_config.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace albireo {
namespace {

double seconds_of(ThreadPool& pool, const std::function<void(int64_t)>& job) {
  const auto start = std::chrono::steady_clock::now();
  pool.run(job);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool has(const std::string& level) {
  const auto levels = isa_levels();
  return std::find(levels.begin(), levels.end(), level) != levels.end();
}

// Sums 64-bit words so that no load can be left out; 8 chains hide the add. Clones are chosen by loaders of ELF files.
#if defined(__x86_64__) && defined(__ELF__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t read_all(const uint64_t* p, int64_t words) {
  uint64_t s[32] = {};
  for (int64_t i = 0; i + 32 <= words; i += 32)
    for (int64_t j = 0; j < 32; j++) s[j] += p[i + j];
  uint64_t sum = 0;
  for (uint64_t x : s) sum += x;
  return sum;
}

// 28 chains: more than latency times throughput of any core so far (16 fall short of it where two start each cycle).
// clang-format off
#define CHAINS(OP) \
  OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11) OP(12) OP(13) OP(14) OP(15) OP(16) \
  OP(17) OP(18) OP(19) OP(20) OP(21) OP(22) OP(23) OP(24) OP(25) OP(26) OP(27)
// clang-format on
constexpr int kChains = 28;
#if defined(__x86_64__)
// What others left in registers may be numbers below the normal range, with which some processors take 100 times as
// long.
#define ZERO512(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n"
#define FMA512(n) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #n "\n"
#define DOT512(n) "vdpbf16ps %%zmm30, %%zmm31, %%zmm" #n "\n"
#define DOTI512(n) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #n "\n"
#define MADD512(n) "vpmaddubsw %%zmm30, %%zmm31, %%zmm" #n "\n"
#define FMA256(n) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #n "\n"
#define DOTI256(n) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" #n "\n"
#define MADD256(n) "vpmaddubsw %%ymm14, %%ymm15, %%ymm" #n "\n"
__attribute__((noinline)) void chains_fma512(int64_t n) {
  asm volatile(CHAINS(ZERO512) ZERO512(30) ZERO512(31)::: "memory");
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(FMA512)::: "memory");
}
__attribute__((noinline)) void chains_dot512(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(DOT512)::: "memory");
}
__attribute__((noinline)) void chains_int8_512(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(DOTI512)::: "memory");
}
__attribute__((noinline)) void chains_madd512(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(MADD512)::: "memory");
}
// 12 chains, of 16 registers.
// clang-format off
#define CHAINS256(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)
// clang-format on
constexpr int kChains256 = 12;
__attribute__((noinline)) void chains_fma256(int64_t n) {
  asm volatile("vzeroall" ::: "memory");
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS256(FMA256)::: "memory");
}
__attribute__((noinline)) void chains_int8_256(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS256(DOTI256)::: "memory");
}
__attribute__((noinline)) void chains_madd256(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS256(MADD256)::: "memory");
}
// Four sums in turn: a dot of whole tiles takes as long as its 16 rows, and no longer into the sum it was added to
// last.
constexpr int kTileChains = 4;
#define TILE_CHAINS(DOT)                                                                              \
  DOT " %%tmm6, %%tmm4, %%tmm0\n" DOT " %%tmm7, %%tmm4, %%tmm1\n" DOT " %%tmm6, %%tmm5, %%tmm2\n" DOT \
      " %%tmm7, %%tmm5, %%tmm3\n"
__attribute__((noinline)) void chains_bf16_tiles(int64_t n) {
  asm volatile("ldtilecfg %0" ::"m"(tile_config(16, 64)));
  for (int64_t i = 0; i < n; i++) asm volatile(TILE_CHAINS("tdpbf16ps")::: "memory");
  asm volatile("tilerelease");
}
__attribute__((noinline)) void chains_int8_tiles(int64_t n) {
  asm volatile("ldtilecfg %0" ::"m"(tile_config(16, 64)));
  for (int64_t i = 0; i < n; i++) asm volatile(TILE_CHAINS("tdpbsud")::: "memory");
  asm volatile("tilerelease");
}
#elif defined(__aarch64__)
#define ARCH128 ".arch armv8.2-a+dotprod+i8mm+bf16\n"  // of the assembler: a machine that has them comes here
// Unlike x86's, half of eight of these registers are the caller's.
#define CLOBBERS128                                                                                               \
  "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", \
      "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27"
#define FMA128(n) "fmla v" #n ".4s, v30.4s, v31.4s\n"
#define MULL128(n) "smull v" #n ".8h, v30.8b, v31.8b\n"
#define DOTI128(n) "sdot v" #n ".4s, v30.16b, v31.16b\n"
#define MMLA128(n) "bfmmla v" #n ".4s, v30.8h, v31.8h\n"
#define MMLAI128(n) "usmmla v" #n ".4s, v30.16b, v31.16b\n"
__attribute__((noinline)) void chains_fma128(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(FMA128)::: CLOBBERS128);
}
__attribute__((noinline)) void chains_mull128(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(CHAINS(MULL128)::: CLOBBERS128);
}
__attribute__((noinline)) void chains_int8_128(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(ARCH128 CHAINS(DOTI128)::: CLOBBERS128);
}
__attribute__((noinline)) void chains_mmla128(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(ARCH128 CHAINS(MMLA128)::: CLOBBERS128);
}
__attribute__((noinline)) void chains_mmla_int8_128(int64_t n) {
  for (int64_t i = 0; i < n; i++) asm volatile(ARCH128 CHAINS(MMLAI128)::: CLOBBERS128);
}
#endif

}  // namespace

double probe_read(ThreadPool& pool, const char* data, int64_t bytes) {
  const int64_t share = bytes / pool.size() / 4096 * 4096;
  std::atomic<uint64_t> sink{0};
  const double s =
      seconds_of(pool, [&](int64_t thread) { sink += read_all((const uint64_t*)(data + thread * share), share / 8); });
  return (double)(share * pool.size()) / s;
}

double probe_dot(ThreadPool& pool, const std::string& kind, int64_t iterations) {
  void (*chains)(int64_t) = nullptr;
  double per_iteration = 0;
#if defined(__x86_64__)
  if (kind == "bfloat16") {
    if (has("amx")) chains = chains_bf16_tiles, per_iteration = kTileChains * 16 * 16 * 32 * 2;
    else if (has("avx512bf16")) chains = chains_dot512, per_iteration = kChains * 64;
  } else if (kind == "int8") {
    // Without VNNI pairs of products are added in 16 bits, and what adds those is left out of the limit.
    if (has("amx")) {
      chains = chains_int8_tiles, per_iteration = kTileChains * 16 * 16 * 64 * 2;
    } else if (has("avx512vnni")) {
      chains = chains_int8_512, per_iteration = kChains * 128;
    } else if (has("avx512")) {
      chains = chains_madd512, per_iteration = kChains * 128;
    } else if (has("avxvnni")) {
      chains = chains_int8_256, per_iteration = kChains256 * 64;
    } else if (has("avx2")) {
      chains = chains_madd256, per_iteration = kChains256 * 64;
    }
  } else if (has("avx512")) {
    chains = chains_fma512, per_iteration = kChains * 32;
  } else if (has("avx2")) {
    chains = chains_fma256, per_iteration = kChains256 * 16;
  }
#elif defined(__aarch64__)
  if (kind == "bfloat16") {
    if (has("neonmm")) chains = chains_mmla128, per_iteration = kChains * 32;
  } else if (kind == "int8") {
    // Without DotProd what adds products is left out of the limit.
    if (has("neonmm")) {
      chains = chains_mmla_int8_128, per_iteration = kChains * 64;
    } else if (has("neondot")) {
      chains = chains_int8_128, per_iteration = kChains * 32;
    } else if (has("neon")) {
      chains = chains_mull128, per_iteration = kChains * 16;
    }
  } else if (has("neon")) {
    chains = chains_fma128, per_iteration = kChains * 8;
  }
#endif
  if (!chains) return 0;
  const double s = seconds_of(pool, [&](int64_t) { chains(iterations); });
  return per_iteration * (double)iterations * (double)pool.size() / s;
}

}  // namespace albireo
