"""LoraModels: the adapters that callers of this process name by LoRARequest.

Made by llm.py and async_llm.py. Does not know what an adapter holds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from albireo.api.adapters import Adapters, no_adapters
from albireo.api.requests.submission import Submission
from albireo.errors import InvalidParams, short
from albireo.lora_request import LoRARequest


class LoraModels:
    """Invariant: a lora_int_id stands for one adapter, that of the first request which named it."""

    def __init__(self, adapters: Adapters | None) -> None:
        """Args: adapters: None where there are none."""
        self._adapters = adapters
        self._known: dict[int, tuple[LoRARequest, int]] = {}
        self._lock = threading.Lock()

    def number(self, request: LoRARequest | None) -> int | None:
        """The number that the engine has for an adapter; read when first asked for. From any thread.

        Raises: InvalidParams when it cannot be, or the id is another adapter's; ModelError for one that does not fit.
        """
        if request is None:
            return None
        if self._adapters is None:
            raise no_adapters()
        if not isinstance(request, LoRARequest):
            raise InvalidParams(f"lora_request must be LoRARequest, got {type(request).__name__}")
        with self._lock:
            return self._number(request)

    def _number(self, request: LoRARequest) -> int:
        assert self._adapters is not None, "looked at"
        known, number = self._known.get(request.lora_int_id, (None, 0))
        if known is None:
            number = self._adapters.load(request.lora_path)
            self._known[request.lora_int_id] = (request, number)
        elif known != request:
            raise InvalidParams(
                f"lora_int_id={request.lora_int_id} is {short(known.lora_name)} in {short(known.lora_path)} already; "
                "give another adapter another number, or remove_lora() that one before"
            )
        return number

    def with_adapter(self, submission: Submission, request: LoRARequest | None) -> Submission:
        """A submission to be run with an adapter. Raises: as number()."""
        if request is None:
            return submission
        return replace(submission, adapter=self.number(request), lora_request=request)

    def with_adapters(
        self, submissions: list[Submission], given: LoRARequest | Sequence[LoRARequest | None] | None
    ) -> list[Submission]:
        """Submissions to be run with one adapter for all, or one each. Raises: as number()."""
        if given is None or isinstance(given, LoRARequest) or not isinstance(given, Sequence):
            return [self.with_adapter(each, given) for each in submissions]
        if len(given) != len(submissions):
            raise InvalidParams(
                f"there are {len(submissions)} prompts and {len(given)} lora_requests; give one for all or each"
            )
        return [self.with_adapter(*pair) for pair in zip(submissions, given, strict=True)]

    def remove(self, lora_int_id: int) -> bool:
        """Let an adapter go; requests that have it go on to their end. Returns: whether it was known. Between steps."""
        known = self._known.pop(lora_int_id, None)
        if known is None or self._adapters is None:
            return False
        self._adapters.remove(known[1])
        return True

    def ids(self) -> set[int]:
        """Of the adapters that are known."""
        return set(self._known)
