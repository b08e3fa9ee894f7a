"""What makes rows of a language model's embeddings of a picture: vision towers and their projectors, one file a family.

tower.py is what the front doors ask; encoder.py has the layers that all towers share. Does not know how pictures are
decoded, resized or cut into tiles, nor devices.
"""
