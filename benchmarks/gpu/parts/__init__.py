"""The parts of first_hour.py, in the order in which they run, each with its seconds.

A part is a module with `run(setup) -> Iterator[Row]`; it imports what it needs there, so that what is missing makes it
be skipped, and with a reason.
"""

from __future__ import annotations

#: Together under ten minutes.
PARTS = {
    "machine": 10,
    "ceilings": 25,
    "kernels": 80,
    "tokens": 45,
    "instructions": 30,
    "decode": 75,
    "prefill": 45,
    "graphs": 25,
    "attention": 30,
    "sampling": 30,
    "attention_launches": 25,
    "tuning": 70,
    "early": 25,
    "prefill_tiles": 80,
    "throughput": 100,
    "busy": 90,
}
