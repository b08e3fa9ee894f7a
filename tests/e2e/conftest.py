"""Commands and plans measure the machine briefly."""

from brief_measurements import briefly

__all__ = ["briefly"]
