"""Ways to choose the few bits of a weight matrix: round to nearest, scaled inputs (SmoothQuant, AWQ), GPTQ.

Called by compress/, one matrix at a time. Knows arrays; no models, no files, no text.
"""
