"""HTTP in, HTTP out: protocols, admission, streams, metrics. The engine is a client object (engine_process) to it.

Called by `albireo serve`. Needs the extra `serve`. Does not know tensors, processes or messages.
"""
