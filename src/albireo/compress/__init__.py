"""Makes a checkpoint of fewer bits from a checkpoint: calibration, the methods layer after layer, the file, the report.

Called by cli/quantize.py. Knows models, text and quantization/; no kernels and no engine.
"""
