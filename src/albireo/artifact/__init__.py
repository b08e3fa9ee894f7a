"""Engine directories: what is written ahead of time, and how it is read back without being trusted.

Called by api/. writer.py and reader.py are the two doors; docs/engine-directory.md is the specification.
Does not know devices: packed bytes come and go through backends.
"""
