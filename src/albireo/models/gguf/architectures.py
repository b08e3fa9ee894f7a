"""What llama.cpp calls an architecture, and what its GGUF files hold: the names of tensors, the settings, and what
converters did that is put back.

Read by names.py and config.py. Sources: gguf/constants.py, gguf/tensor_mapping.py and conversion/*.py of llama.cpp;
what its graphs (src/models/*.cpp) know and no file says is in the files of settings.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.models.gguf.architecture import GgufArchitecture
from albireo.models.gguf.dense_table import DENSE
from albireo.models.gguf.encoder_table import ENCODERS
from albireo.models.gguf.layer_norm_table import LAYER_NORMS
from albireo.models.gguf.mixture_table import MIXTURES
from albireo.models.gguf.state_table import STATES

#: general.architecture -> what it is.
ARCHITECTURES: Mapping[str, GgufArchitecture] = {**DENSE, **MIXTURES, **STATES, **LAYER_NORMS, **ENCODERS}
