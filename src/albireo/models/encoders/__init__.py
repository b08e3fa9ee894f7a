"""Models whose tokens see what comes behind them, too: they give embeddings and scores, and no text.

One file an architecture, found by name as those of models/ are; layers.py has what they share.
"""
