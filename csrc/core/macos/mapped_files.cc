#include <libproc.h>
#include <unistd.h>

#include <cstring>

#include "albireo/system.h"

namespace albireo {

// One system call, behind a function that only passes it on.
bool mapped_file_at(uint64_t address, MappedFile& found) {
  static proc_regionwithpathinfo region;  // not on a stack, which may be a small one
  const int size = proc_pidinfo(getpid(), PROC_PIDREGIONPATHINFO, address, &region, sizeof(region));
  const proc_regioninfo& at = region.prp_prinfo;
  const char* path = region.prp_vip.vip_path;
  if (size < (int)sizeof(region) || path[0] != '/') return false;
  if (address < at.pri_address || address - at.pri_address >= at.pri_size) return false;  // that of a region behind it
  found.byte = address - at.pri_address + at.pri_offset;
  const size_t length = strnlen(path, sizeof(region.prp_vip.vip_path) - 1);
  static_assert(sizeof(region.prp_vip.vip_path) <= sizeof(found.path));
  memcpy(found.path, path, length);
  found.path[length] = 0;
  return true;
}

}  // namespace albireo
