"""MiniMax M1 as its authors publish it: Text-01 under a name of its own.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.models.decoders import minimax_text_01

TINY = {**minimax_text_01.TINY, "architectures": ["MiniMaxM1ForCausalLM"], "model_type": "minimax_m1"}
CONFIG = minimax_text_01.CONFIG
IGNORABLE_WEIGHTS, build = minimax_text_01.IGNORABLE_WEIGHTS, minimax_text_01.build
