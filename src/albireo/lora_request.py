"""LoRARequest: which adapter a request runs with; vLLM's name and fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from albireo.errors import InvalidParams, short
from albireo.vllm_names import fields_of_vllm


@fields_of_vllm(
    base_model_name="",
    long_lora_max_len="an adapter is as long as its model",
    lora_local_path="here it is lora_path",
    load_inplace="remove_lora() lets the old one go; another number names the new one",
    tensorizer_config_dict="adapters are read from safetensors and GGUF files",
)
@dataclass(frozen=True, slots=True)
class LoRARequest:
    """An adapter of low rank in a directory as PEFT writes it.

    Fields:
        lora_name: what it is called.
        lora_int_id: a number from 1 on; requests with the same one have the same adapter.
        lora_path: its directory. It is read once.
    """

    lora_name: str
    lora_int_id: int
    lora_path: str

    @property
    def adapter_id(self) -> int:
        """lora_int_id, as vLLM has it, too."""
        return self.lora_int_id

    @property
    def name(self) -> str:
        """lora_name, likewise."""
        return self.lora_name

    @property
    def path(self) -> str:
        """lora_path, likewise."""
        return self.lora_path

    def __post_init__(self) -> None:
        if not isinstance(self.lora_name, str) or not self.lora_name:
            raise InvalidParams(f"lora_name={short(self.lora_name)} is not allowed; it must be a name")
        if type(self.lora_int_id) is not int or not 1 <= self.lora_int_id < 2**63:
            raise InvalidParams(f"lora_int_id={short(self.lora_int_id)} is not allowed; it must be a number from 1 on")
        if isinstance(self.lora_path, Path):
            object.__setattr__(self, "lora_path", str(self.lora_path))
        if not isinstance(self.lora_path, str) or not self.lora_path:
            raise InvalidParams(f"lora_path={short(self.lora_path)} is not allowed; it must be a directory")
