"""/v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them."""

from __future__ import annotations

import msgspec


class LoadAdapterRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A name, and a directory on the server's machine. load_inplace: in place of the adapter that has the name."""

    lora_name: str
    lora_path: str
    load_inplace: bool | None = None


class UnloadAdapterRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A name. lora_int_id: vLLM's own number, which says nothing here and must be left out."""

    lora_name: str
    lora_int_id: None = None
