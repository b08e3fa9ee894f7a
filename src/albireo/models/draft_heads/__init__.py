"""Heads that draft: a layer that guesses what a model says next from the hidden states that the model leaves anyway.

head.py says what one is; mtp.py those that a model was published with, eagle.py those that were trained for one later.
"""
