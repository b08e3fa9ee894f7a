"""Models that write text, and those that embed by the same layers: one file a model_type, found by its name."""
