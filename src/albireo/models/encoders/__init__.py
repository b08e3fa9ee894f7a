"""Models whose tokens see what comes behind them, too: they give embeddings and scores, and no text.

One file an architecture, found by name as those of decoders/ are; what they share is in blocks/encoder_layers.py.
"""
