"""Step 3.5 Flash, of transformers' own classes: the text part of Step 3.7 with the head that the whole has.

Imported by transformers_models.py.
"""

from __future__ import annotations

import pytest

from transformers_stand_ins import WithHead, transformers

conversion = pytest.importorskip("transformers.conversion_mapping")
step = pytest.importorskip("transformers.models.step3p7.modeling_step3p7")


class Step3p5ForCausalLM(WithHead, step.Step3p7PreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.Step3p7TextConfig
    text_model = step.Step3p7TextModel


transformers.AutoModelForCausalLM.register(transformers.Step3p7TextConfig, Step3p5ForCausalLM, exist_ok=True)
# names of layers, without those of a whole's parts
conversion.register_checkpoint_conversion_mapping(
    "step3p5",
    [
        each
        for each in conversion.get_checkpoint_conversion_mapping("step3p7")
        if not any(str(source).startswith("^") for source in each.source_patterns)
    ],
    overwrite=True,
)
