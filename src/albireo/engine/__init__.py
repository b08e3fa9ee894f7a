"""Who runs next: requests, blocks and the step, in plain integers and lists.

Called by api. Does not know text, tensors, devices or wall clocks; meets execution only through step.py.
"""
