"""The parts of first_hour.py, each with its seconds, and the calls that they are run in.

A part is a module with `run(setup) -> Iterator[Row]`; it imports what it needs there, so that what is missing makes it
be skipped, and with a reason.
"""

from __future__ import annotations

#: At most, and a part of it where all of a call has fewer; what a part leaves of it is there for the later ones.
PARTS = {
    "machine": 10,
    "kernels": 200,
    "joined_numbers": 200,
    "attention_numbers": 200,
    "linears_bfloat16": 200,
    "linears_fp8": 200,
    "linears_int4": 200,
    "nests": 200,
    "experts": 200,
    "tokens": 200,
    "invariance": 200,
    "compiled_ahead": 200,
    "one_rank": 200,
    "swap": 40,
    "ceilings": 25,
    "decode": 105,
    "prefill": 60,
    "attention": 35,
    "expert_speed": 25,
    "sampling": 40,
    "graphs": 50,
    "breakdown": 35,
    "throughput": 280,
    "busy": 100,
    "transformers": 155,
    "lost": 20,
    "early": 65,
    "small_calls": 60,
    "attention_launches": 50,
    "nest_speed": 65,
    "tuning": 80,
    "prefill_tiles": 110,
    "expert_tiles": 40,
    "instructions": 30,
    "speculative": 70,
    "states": 20,
    "ranks": 280,
}
#: Those that hold kernels against torch; first_hour.py says which kernels each of them launches.
NUMBERS = (
    "kernels",
    "joined_numbers",
    "attention_numbers",
    "linears_bfloat16",
    "linears_fp8",
    "linears_int4",
    "nests",
    "experts",
    "sampling",
)
#: What is asked for together: a call of ten minutes. Parts of a group run side by side on one GPU: their time is spent
#: compiling, and none of them is a measurement.
CALLS = {
    "numbers": (
        ("machine",),
        (
            "kernels",
            "joined_numbers",
            "attention_numbers",
            "linears_bfloat16",
            "linears_fp8",
            "linears_int4",
            "nests",
            "experts",
            "tokens",
            "invariance",
            "compiled_ahead",
            "one_rank",
        ),
        ("swap",),
        ("ceilings",),
        ("decode",),
        ("prefill",),
        ("attention",),
        ("expert_speed",),
        ("sampling",),
        ("graphs",),
    ),
    "engine": (("breakdown",), ("throughput",), ("busy",), ("transformers",), ("lost",)),
    "constants": (
        ("early",),
        ("small_calls",),
        ("attention_launches",),
        ("nest_speed",),
        ("tuning",),
        ("prefill_tiles",),
        ("expert_tiles",),
        ("instructions",),
        ("speculative",),
        ("states",),
    ),
    # of a machine with several GPUs
    "ranks": (("ranks",),),
}
