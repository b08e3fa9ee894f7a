"""Videos -> chosen frames of them, and what a model reads of those."""
