"""Encodings of weights in fewer bits, and the formats that checkpoints store them in. Knows numpy, no devices."""
