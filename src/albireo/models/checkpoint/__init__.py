"""The weights of a model directory by the names that graphs read: files, and what lies in them otherwise."""
