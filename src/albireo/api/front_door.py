"""FrontDoor: how LLM and AsyncLLM are made, and what both say of their model.

Does not know how requests run.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Self

from albireo.api.load import Loaded, load
from albireo.api.requests.admission import Admission
from albireo.api.requests.lora import LoraModels
from albireo.config import EngineConfig
from albireo.errors import ConfigError, EngineError
from albireo.params import SamplingParams
from albireo.text.script_tokenizer import ScriptTokenizer
from albireo.vllm_names import attribute_error


class FrontDoor:
    """One model in this process.

    Attributes:
        loaded: what the model is and how it was loaded (configuration, program, memory, load_s); None once closed, and
            while it sleeps.
    """

    #: What errors say of one that has come to its end.
    _ended: ClassVar[str] = "is closed"

    def __init__(self, model: str | None = None, *, use_tqdm_on_load: bool = True, **kwargs: Any) -> None:
        """Load a model.

        Args:
            model: directory in Hugging Face layout, a hub name, or None for the bundled model.
            use_tqdm_on_load: a progress bar while weights load, on a terminal only.
            kwargs: fields of EngineConfig; gpu_memory_utilization is another name of memory_utilization.
        Raises: ConfigError, ModelError, OutOfMemory.
        """
        config = EngineConfig.from_kwargs(model=model, **kwargs)
        self._begin(config, load(config, show_progress=use_tqdm_on_load))

    @classmethod
    def from_engine_args(cls, engine_args: EngineConfig) -> Self:
        """One by EngineArgs, as vLLM has it. Raises: ConfigError, ModelError, OutOfMemory."""
        if not isinstance(engine_args, EngineConfig):
            raise ConfigError(f"engine_args must be EngineArgs, got {type(engine_args).__name__}")
        llm = cls.__new__(cls)
        llm._begin(engine_args, load(engine_args, show_progress=True))
        return llm

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """One over a model that is loaded already and that nothing else runs."""
        llm = cls.__new__(cls)
        llm._begin(loaded.config, loaded)
        return llm

    def _begin(self, config: EngineConfig, loaded: Loaded) -> None:
        """Args: config: what it is loaded by again, after a sleep; None once it is closed."""
        self._config: EngineConfig | None = config
        self._request_ids = itertools.count()
        self._start(loaded)

    def _start(self, loaded: Loaded) -> None:
        self.loaded: Loaded | None = loaded
        self._tokenizer = loaded.tokenizer
        self._admission = Admission.of(loaded)
        self._loras = LoraModels(loaded.adapters)

    def _check_open(self) -> None:
        if self._config is None:
            raise EngineError(f"this {type(self).__name__} {self._ended}; make a new one")

    @property
    def is_running(self) -> bool:
        """False once it has come to its end."""
        return self._config is not None

    @property
    def is_stopped(self) -> bool:
        """The other way round; vLLM has it as errored, too."""
        return not self.is_running

    errored = is_stopped

    if not TYPE_CHECKING:  # which knows what is there

        def __getattr__(self, name: str) -> Any:
            raise attribute_error(self, name)

    def get_tokenizer(self) -> ScriptTokenizer:
        """The model's tokenizer, also by transformers' names: tokenizer(text), apply_chat_template().

        Raises: ConfigError when skip_tokenizer_init is set.
        """
        self._check_open()
        return self._admission.script_tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What generate() uses when given none: the model's generation_config.json over the built-in defaults."""
        return self._admission.default_params()
