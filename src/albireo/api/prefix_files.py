"""Opens the folder that prefixes are kept in, for one model as it is computed here.

Called by load.py. A folder's name is a hash of all that a block's bits depend on: the model's files, the program with
its kernels, the native code, the layout of a block. Whatever of it changes, older blocks are not found any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from albireo import __version__
from albireo.backends.cpu.machine import native_digest
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.execution.block_files import BlockDirectory
from albireo.execution.runner import BlockContents
from albireo.graph.program import Program

#: Of the format of files and names.
_VERSION = 1


def check_prefix_files(config: EngineConfig, device: str, is_causal: bool) -> None:
    """Raises: ConfigError where prefixes of this model, or on this device, are not kept in files."""
    if config.prefix_cache_dir is None:
        return
    problem = ""
    if not config.enable_prefix_caching:
        problem = "enable_prefix_caching is off"
    elif not is_causal:
        problem = "tokens of this model see those behind them, so no prompt begins as another one"
    elif device != "cpu":
        problem = f"blocks in the memory of a GPU are not written to files; this runs on {device}"
    elif config.speculative_config is not None and config.speculative_config.method != "ngram":
        problem = "what a draft model or head keeps of a prefix is not written to files"
    if problem:
        raise ConfigError(f"prefix_cache_dir={config.prefix_cache_dir}: {problem}; leave it out")


def open_prefix_files(
    config: EngineConfig, directory: Path, programs: Sequence[Program], max_model_len: int, contents: BlockContents
) -> BlockDirectory:
    """The folder of this model in prefix_cache_dir. Args: directory: the model's, or its one file.

    Raises: ConfigError when it cannot be used.
    """
    assert config.prefix_cache_dir is not None, "asked for"
    root = Path(config.prefix_cache_dir)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode, owner = root.stat().st_mode, root.stat().st_uid
        is_usable = os.access(root, os.R_OK | os.W_OK | os.X_OK)
    except OSError as error:
        raise ConfigError(f"prefix_cache_dir={root}: it cannot be made ({error.strerror}); name another") from None
    if not is_usable:
        raise ConfigError(f"prefix_cache_dir={root}: it cannot be written to; name another")
    if owner != os.getuid() or mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"prefix_cache_dir={root}: others may write there (mode {stat.S_IMODE(mode):o}), and so change answers; "
            "name a folder of your own, with mode 700"
        )
    model = model_key(directory, programs, max_model_len)
    return BlockDirectory(root, model, contents, config.prefix_cache_dir_bytes)


def model_key(directory: Path, programs: Sequence[Program], max_model_len: int) -> str:
    """What the bits of a model's blocks depend on, as a name. Rotations may depend on the longest sequence."""
    parts = {
        "version": [_VERSION, __version__, native_digest()],
        "files": list(_files(directory)),
        "max_model_len": max_model_len,
        "kv": [[asdict(program.kv), repr(program.states)] for program in programs],
        "calls": [[(call.family, call.kernel, sorted(call.attrs.items())) for call in each.calls] for each in programs],
        "constants": [[(name, repr(constant)) for name, constant in each.constants.items()] for each in programs],
    }
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()[:32]


def _files(directory: Path) -> Iterator[tuple[str, int, int]]:
    """A model's files, each by its name, size and time: to read all weights would take as long as loading them."""
    paths = [directory] if directory.is_file() else sorted(path for path in directory.rglob("*") if path.is_file())
    for path in paths:
        found = path.stat()
        yield path.name, found.st_size, found.st_mtime_ns
