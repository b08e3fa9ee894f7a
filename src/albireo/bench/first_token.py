"""A process that loads a model, makes one token, and says when it was where: what startup.py starts and times.

Run as a module with a JSON object on stdin: {"engine": fields of EngineConfig, "input_len": tokens of the prompt}.
Prints one JSON object: moments of the system's monotonic clock, or {"error": message}. What it imports, it imports
between two moments.
"""

from __future__ import annotations

import time

_STARTED_S = time.monotonic()


def _moments(asked: dict[str, object]) -> dict[str, float]:
    """Load, and make one token of a prompt of some ids. Raises: EngineError."""
    from albireo.api.llm import LLM
    from albireo.params import SamplingParams

    imported_s = time.monotonic()
    llm = LLM(use_tqdm_on_load=False, **asked["engine"])  # type: ignore[arg-type]
    loaded_s = time.monotonic()
    assert llm.loaded is not None
    size = llm.loaded.model_config.vocab_size
    prompt = [i % size for i in range(int(str(asked["input_len"])))]
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
    return {"started": _STARTED_S, "imported": imported_s, "loaded": loaded_s, "token": time.monotonic()}


def main() -> int:
    """Returns: the exit code."""
    import json
    import sys

    from albireo.errors import EngineError

    try:
        print(json.dumps(_moments(json.load(sys.stdin))))
    except EngineError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
