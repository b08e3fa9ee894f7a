"""Where a model comes from: its name, the directory, and what was decided about it before."""
