// Include after a vec_<isa>.h.
#pragma once
#include "kernels/gemm/panels.h"

namespace {
using namespace albireo;

// Panels on a kernel's stack, for as long as it runs.
class HeldPanels {
 public:
  ALBIREO_INLINE HeldPanels(MakePanels make, const Args& args, Scratch& scratch, char* memory)
      : panels_(make(args, scratch, memory, room_)) {}
  ALBIREO_INLINE ~HeldPanels() { panels_->~Panels(); }
  HeldPanels(const HeldPanels&) = delete;
  HeldPanels& operator=(const HeldPanels&) = delete;
  ALBIREO_INLINE Panels& operator*() { return *panels_; }
  ALBIREO_INLINE Panels* operator->() { return panels_; }

 private:
  alignas(64) char room_[kPanelsBytes];
  Panels* panels_;
};

}  // namespace
