"""Several whole engines behind one server: who gets a request, and who goes on with it when an engine dies.

Called by server, for one engine as for many. Does not know HTTP, or how an engine process is reached.
docs/data-parallel.md says what the rules are, and why.
"""
