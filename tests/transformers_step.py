"""Step 3.5 Flash, of transformers' own classes: the text part of Step 3.7 with the head that the whole has.

Imported by transformers_models.py.
"""

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
conversion = pytest.importorskip("transformers.conversion_mapping")
step = pytest.importorskip("transformers.models.step3p7.modeling_step3p7")
nn = pytest.importorskip("torch").nn


class Step3p5ForCausalLM(step.Step3p7PreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.Step3p7TextConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = step.Step3p7TextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Any, **given: Any) -> Any:
        found = self.model(input_ids=input_ids, **given)
        return transformers.modeling_outputs.MoeCausalLMOutputWithPast(
            logits=self.lm_head(found.last_hidden_state), cache=found.cache
        )


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
