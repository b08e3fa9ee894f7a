"""Models that Ollama, LM Studio and the hub's cache have here."""

from __future__ import annotations

import hashlib
import json
import logging
import pwd
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM, SamplingParams
from albireo.api.sources import locate
from albireo.api.sources.locate import locate_model
from albireo.api.sources.other_stores import cached_of_hub
from albireo.api.sources.projector_place import beside
from albireo.cli.served import default_name
from albireo.errors import ModelError
from tiny_gguf import write_with_tokenizer

LAYER = "application/vnd.ollama.image."


class Store:
    """Ollama's, as its documentation of manifests describes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(content)
        return f"sha256:{digest}"

    def add(self, name: str, **layers: bytes) -> Path:
        """Args: name: as the path below manifests. layers: kind -> content."""
        path = self.root / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        told = [
            {"mediaType": f"{LAYER}{kind}", "digest": self.blob(content), "size": len(content)}
            for kind, content in layers.items()
        ]
        path.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": told}))
        return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return Store(tmp_path / "models")


@pytest.fixture
def tiny(tmp_path: Path) -> bytes:
    path = tmp_path / "tiny.gguf"
    write_with_tokenizer(path, "F32")
    return path.read_bytes()


def test_a_model_of_ollama_says_what_its_file_says(store: Store, tiny: bytes, tmp_path: Path) -> None:
    path = store.add("registry.ollama.ai/library/tiny/latest", model=tiny)
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)

    def said(model: str) -> Any:
        llm = LLM(model, max_model_len=64, max_num_seqs=2)
        return llm.chat([{"role": "user", "content": "hi"}], params)[0].outputs[0].token_ids

    assert said("ollama:tiny") == said(str(tmp_path / "tiny.gguf"))
    blob = json.loads(path.read_text())["layers"][0]["digest"].replace(":", "-")
    for name in ("ollama:tiny:latest", str(path), str(store.root / "blobs" / blob)):
        assert locate_model(name).read_bytes() == tiny


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tiny:1b", "registry.ollama.ai/library/tiny/1b"),
        ("me/tiny", "registry.ollama.ai/me/tiny/latest"),
        ("hf.co/me/tiny-GGUF:Q4_K_M", "hf.co/me/tiny-GGUF/Q4_K_M"),
    ],
)
def test_names_are_ollamas(store: Store, tiny: bytes, name: str, place: str) -> None:
    store.add(place, model=tiny)
    assert locate_model(f"ollama:{name}").read_bytes() == tiny
    assert default_name(f"ollama:{name}") == name
    with pytest.raises(ModelError, match=re.escape(f"it has {name if ':' in name else f'{name}:latest'};")):
        locate_model("ollama:other")


def test_its_projector_lies_beside_it(store: Store, tiny: bytes) -> None:
    """A file that is no projector is found as one, and said of."""
    store.add("registry.ollama.ai/library/sees/latest", model=tiny, projector=b"GGUF, and no more")
    found = beside(locate_model("ollama:sees"), None)
    assert "mmproj-0.gguf" in found.problem


def test_what_a_model_of_ollama_has_beside_is_said(store: Store, tiny: bytes, caplog: pytest.LogCaptureFixture) -> None:
    params = json.dumps({"temperature": 0.6, "stop": ["<|end|>"]}).encode()
    store.add("registry.ollama.ai/library/tiny/latest", model=tiny, params=params, system=b"Be brief.")
    with caplog.at_level(logging.WARNING):
        locate_model("ollama:tiny")
    (line,) = caplog.messages
    assert "temperature=0.6 (--override-generation-config says it); a SYSTEM message" in line


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"tensor": b"x"}, "single tensors"),
        ({"model": b"GGUF", "adapter": b"GGUF"}, "with an adapter"),
        ({"model": b"PK\x03\x04"}, "is no GGUF file"),
        ({"license": b"x"}, "0 files of weights"),
    ],
)
def test_what_is_not_read_is_said(store: Store, layers: dict[str, bytes], said: str) -> None:
    store.add("registry.ollama.ai/library/odd/latest", **layers)
    with pytest.raises(ModelError, match=said):
        locate_model("ollama:odd")


def _gone(store: Store, path: Path) -> None:
    for blob in (store.root / "blobs").iterdir():
        blob.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda store, path: path.write_text("{"), "no manifest of Ollama's"),
        (lambda store, path: path.write_text('{"layers": [{"digest": "sha256:../../etc/passwd"}]}'), "which is none"),
        (_gone, "is not there, or may not be read"),
    ],
)
def test_a_spoiled_store_is_said(store: Store, tiny: bytes, spoil: Callable[[Store, Path], Any], said: str) -> None:
    spoil(store, store.add("registry.ollama.ai/library/tiny/latest", model=tiny))
    with pytest.raises(ModelError, match=said):
        locate_model("ollama:tiny")


@pytest.mark.parametrize("name", ["../../x", "a b", "..", "x/../y", "..:out/me/tiny", "a:../me/tiny"])
def test_a_name_does_not_leave_the_store(store: Store, tiny: bytes, name: str) -> None:
    store.add("../out/me/tiny", model=tiny)
    with pytest.raises(ModelError, match="is no name of a model"):
        locate_model(f"ollama:{name}")


def test_a_file_that_may_not_be_read_is_said(store: Store, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add("registry.ollama.ai/library/tiny/latest", model=tiny)
    opened = Path.open

    def refused(path: Path, *args: Any) -> Any:
        if path.parent.name == "blobs":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\)"):
        locate_model("ollama:tiny")


def test_of_what_a_manifest_calls_parameters_little_is_read(store: Store, tiny: bytes) -> None:
    """It may be a file of weights."""
    path = store.add("registry.ollama.ai/library/tiny/latest", model=tiny, params=b"{}")
    digest = json.loads(path.read_text())["layers"][1]["digest"].removeprefix("sha256:")
    with (store.root / "blobs" / f"sha256-{digest}").open("r+b") as file:
        file.truncate(1 << 43)  # has no blocks, and fits no memory
    assert locate_model("ollama:tiny").read_bytes() == tiny


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no directory nothing"),
        ("me/tiny", "fetching it from the hub failed|no directory me/tiny"),
        ("ollama:tiny", "Ollama has no models here"),
        ("lmstudio:me/tiny", "LM Studio has no model"),
        ("~/tiny", "no directory ~/tiny"),
    ],
)
@pytest.mark.parametrize("has_library", [True, False])
def test_without_a_home_nothing_is_there(
    name: str, said: str, has_library: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a container's user that passwd does not know."""

    def unknown(_: int) -> Any:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "huggingface" / "hub" / "models--me--tiny"
    (here / "snapshots" / "0123").mkdir(parents=True)
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text("0123")
    if not has_library:
        monkeypatch.setattr(locate, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=said):
        locate_model(name)


def test_who_forgets_the_prefix_is_told(store: Store, tiny: bytes) -> None:
    store.add("registry.ollama.ai/library/tiny/latest", model=tiny)
    with pytest.raises(ModelError, match=r"Ollama has one: ollama:tiny$"):
        locate_model("tiny")


def test_without_ollama_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with pytest.raises(ModelError, match="Ollama has no models here"):
        locate_model("ollama:llama3.2")


def test_a_model_of_lm_studio(tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".lmstudio" / "models" / "me" / "tiny-GGUF"
    folder.mkdir(parents=True)
    (folder / "tiny-Q8_0.gguf").write_bytes(tiny)
    assert locate_model("lmstudio:me/tiny-GGUF") == folder / "tiny-Q8_0.gguf"
    assert locate_model("lmstudio:me/tiny-GGUF/tiny-Q8_0.gguf") == folder / "tiny-Q8_0.gguf"
    for name in ("me/other", "../x", ""):
        with pytest.raises(ModelError, match="LM Studio"):
            locate_model(f"lmstudio:{name}")


def test_the_hubs_cache_is_read_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where huggingface_hub finds a snapshot, it is found without."""
    from huggingface_hub import snapshot_download

    cache, revision = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    snapshot = cache / "models--me--tiny" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cache / "models--me--tiny" / "refs").mkdir()
    (cache / "models--me--tiny" / "refs" / "main").write_text(revision)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert snapshot_download("me/tiny", cache_dir=cache, local_files_only=True) == str(cached_of_hub("me/tiny"))
    monkeypatch.setattr(locate, "find_spec", lambda name: None)
    assert locate_model("me/tiny") == snapshot
    assert cached_of_hub("me/other") is None
    (cache / "models--me--tiny" / "refs" / "main").write_text("../../..")
    assert cached_of_hub("me/tiny") is None
