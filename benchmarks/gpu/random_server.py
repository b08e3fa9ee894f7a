"""`albireo serve` with a model of random numbers, made on the device: used by parts/busy.py.

    random_server.py DIRECTORY REPORT WEIGHTS SEATS dry|real

The server is the real one, on a free port of loopback that it prints; its engine process is random_worker.py. DIRECTORY
gets a tokenizer of as many tokens as the model has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]


def write_tokenizer(directory: Path, size: int) -> None:
    """Bytes, and words that stand for nothing."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"Ġw{i}" for i in range(size - len(alphabet)))]
    backend = tokenizers.Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))


def main() -> None:
    from albireo.replicas.place import local_places
    from albireo.server.run import serve
    from albireo.server.settings import ServerSettings

    directory, report, weights, seats, dry = sys.argv[1:]
    write_tokenizer(Path(directory), 128_256 if dry == "real" else 300)
    command = (sys.executable, str(HERE / "random_worker.py"), report, weights, seats, dry)
    settings = ServerSettings(port=0, served_model_name=("random",))
    places = local_places(1, command)
    serve(settings, {"model": directory}, places=places, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
