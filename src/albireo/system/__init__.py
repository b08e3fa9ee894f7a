"""What the operating system is asked, and told: the same questions to Linux and to macOS.

linux.py and macos.py answer them, each with the functions that are named here; whatever else is used of a system is of
POSIX, or does without where it is missing. The native core has its own questions (csrc/include/albireo/system.h). Knows
nothing of what answers are for.
"""

from __future__ import annotations

import sys

if sys.platform == "darwin":
    from albireo.system.macos import (
        LONGEST_SOCKET_PATH,
        available_memory,
        caches,
        cpuinfo,
        keep_to_processors,
        most_open_files,
        peer_of,
        resident_bytes,
        swap_directories,
        to_disk,
        total_memory,
        usable_processors,
        will_read_once,
    )
else:
    from albireo.system.linux import (
        LONGEST_SOCKET_PATH,
        available_memory,
        caches,
        cpuinfo,
        keep_to_processors,
        most_open_files,
        peer_of,
        resident_bytes,
        swap_directories,
        to_disk,
        total_memory,
        usable_processors,
        will_read_once,
    )

__all__ = [
    "LONGEST_SOCKET_PATH",
    "available_memory",
    "caches",
    "cpuinfo",
    "keep_to_processors",
    "most_open_files",
    "peer_of",
    "resident_bytes",
    "swap_directories",
    "to_disk",
    "total_memory",
    "usable_processors",
    "will_read_once",
]
