"""The parts of first_hour.py, in the order in which they run, each with its seconds.

A part is a module with `run(setup) -> Iterator[Row]`; it imports what it needs there, so that what is missing makes it
be skipped, and with a reason.
"""

from __future__ import annotations

#: Together under ten minutes.
PARTS = {
    "machine": 10,
    "ceilings": 40,
    "kernels": 80,
    "tokens": 50,
    "instructions": 40,
    "decode": 85,
    "prefill": 50,
    "graphs": 25,
    "attention": 30,
    "sampling": 30,
    "tuning": 60,
    "prefill_tiles": 90,
}
