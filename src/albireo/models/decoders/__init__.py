"""Models that write text, and those that embed by the same layers.

One file a model_type, found by models/__init__.py by its name. None knows devices.
"""
