// Panels of a weight, times rows of activations. What the weight is made of and how a level multiplies it is behind
// this: gemm is compiled once a level, in panels_<isa>.cc, and every family that multiplies calls it, a panel at a
// time.
#pragma once
#include "albireo/kernel.h"

namespace albireo {

class Panels {
 public:
  virtual ~Panels();
  Panels(const Panels&) = delete;
  Panels& operator=(const Panels&) = delete;

  // C[rows, 64] = rows m .. m + rows of x, up to kMostChunk, times a panel; rows of C are ldc floats apart.
  virtual void product(int64_t m, int64_t rows, int64_t panel, float* c, int64_t ldc) = 0;

  // Steps that a panel is multiplied in; 0: it has no parts, as none in few bits has.
  virtual int64_t steps() const;
  // A product over `count` of its steps alone, from `first` on.
  virtual void part(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, float* c, int64_t ldc);

  // Of a panel whose rows would not stay in a core's cache: as many steps as they do for; else 0. All panels of a group
  // are multiplied over these before the next, which are added to what C has.
  virtual int64_t steps_at_once() const;
  virtual void add_part(int64_t m, int64_t rows, int64_t panel, int64_t first, int64_t count, float* c, int64_t ldc);

 protected:
  Panels() = default;
};

// Makes those of a call's weight in `room`, kPanelsBytes at a multiple of 64. memory: product_scratch_bytes(args).
using MakePanels = Panels* (*)(const Args& args, Scratch& scratch, char* memory, void* room);
constexpr int64_t kPanelsBytes = 128 << 10;  // tile registers have much beside them, their model more

Panels* panels_scalar(const Args&, Scratch&, char*, void*);
Panels* panels_avx2(const Args&, Scratch&, char*, void*);
Panels* panels_avxvnni(const Args&, Scratch&, char*, void*);
Panels* panels_avx512(const Args&, Scratch&, char*, void*);
Panels* panels_avx512vnni(const Args&, Scratch&, char*, void*);
Panels* panels_avx512bf16(const Args&, Scratch&, char*, void*);
Panels* panels_amx(const Args&, Scratch&, char*, void*);
Panels* panels_neon(const Args&, Scratch&, char*, void*);
Panels* panels_neondot(const Args&, Scratch&, char*, void*);
Panels* panels_neonmm(const Args&, Scratch&, char*, void*);
Panels* panels_integers_neonmm(const Args&, Scratch&, char*, void*);
Panels* panels_amx_model(const Args&, Scratch&, char*, void*);

}  // namespace albireo
