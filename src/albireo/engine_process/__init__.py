"""The engine in a process of its own: messages, the worker that steps, and the client that watches and restarts it.

Called by server. Does not know HTTP. The worker deals in token ids; text is made on the client's side.
"""
