"""How a model that transformers has no class of is made of one that it has.

Used by transformers_models.py and the files that it imports, each of which says what the models are.
"""

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
nn = pytest.importorskip("torch").nn


def stand_in(
    name: str, model_type: str, base: str, *, config: Any = None, model: Any = None, writer: Any = None
) -> None:
    """Lets the Auto classes know a model that is another's under a name of its own.

    Args: name: its architecture is nameForCausalLM. base: what the classes of transformers it is begin with.
        config, model, writer: classes that are not those under another name.
    """
    config = config or type(f"{name}Config", (getattr(transformers, f"{base}Config"),), {"model_type": model_type})
    own = {"config_class": config}
    model = model or type(f"{name}Model", (getattr(transformers, f"{base}Model"),), own)
    writer = writer or type(f"{name}ForCausalLM", (getattr(transformers, f"{base}ForCausalLM"),), own)
    transformers.AutoConfig.register(model_type, config)
    transformers.AutoModel.register(config, model)
    transformers.AutoModelForCausalLM.register(config, writer)


class WithHead:
    """The text part of a whole, alone, with the head that the whole has. Stands before the part's PreTrainedModel.

    Fields: text_model: the part's class.
    """

    text_model: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.model = self.text_model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def forward(self, input_ids: Any, **given: Any) -> Any:
        found = self.model(input_ids=input_ids, **given)
        return transformers.modeling_outputs.MoeCausalLMOutputWithPast(
            logits=self.lm_head(found.last_hidden_state), cache=found.cache
        )
