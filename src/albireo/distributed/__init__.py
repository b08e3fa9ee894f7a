"""Engines on several machines, by Ray: where each runs, and how its process is reached. The only room that imports ray.

Called by cli/serve.py; an optional extra. Does not know requests. What is said to an engine process, and what a death
means, is engine_process's business as for one on this machine.
"""
