"""One side of a comparison: an engine directory as it was built, or a checkpoint compiled in memory.

Called by cli/inspect for diff.py. Reads no weight. Does not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from albireo.api.programs import compile_program
from albireo.api.sources.config_only import open_to_plan
from albireo.api.sources.engine_source import EngineSource
from albireo.api.sources.locate import locate_model
from albireo.api.sources.source import ModelSource, guard
from albireo.artifact.manifest import Manifest, Options
from albireo.artifact.program_json import rows_digest
from albireo.artifact.reader import is_engine_directory
from albireo.backends.cuda.catalog import catalog_of
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.graph.program import Program
from albireo.graph.report import PassRecord
from albireo.models.checkpoint.weights import weight_files
from albireo.models.settings.context import check_context, longest_context


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared of a model.

    Fields:
        manifest: of an engine directory; None for a checkpoint.
        config: of the model, field by field.
        options: that it was built or compiled for.
        sources: weight files of the checkpoint -> size, and sha256 where it is known.
        records: of the passes of this version of the compiler over the graph.
        made_of: constant -> which rows of the checkpoint it is made of, as a hash.
        hashes: constant -> sha256 of its bytes; empty for a checkpoint.
    """

    directory: Path
    manifest: Manifest | None
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    sources: Mapping[str, tuple[int, str]]
    program: Program
    records: tuple[PassRecord, ...]
    made_of: Mapping[str, str]
    hashes: Mapping[str, str]


def open_sides(first: str | None, second: str, settings: Mapping[str, Any]) -> tuple[Side, Side]:
    """Both sides of a comparison.

    settings: EngineConfig fields, for checkpoints. A checkpoint beside an engine directory is compiled for what that
    was built for, as far as the settings leave it open.

    Raises: ModelError; ConfigError for settings that neither side can follow.
    """
    config = EngineConfig.from_kwargs(**settings)
    directories = [locate_model(name) for name in (first, second)]
    engines = {d: EngineSource(d, "auto", config.verify_hashes) for d in directories if is_engine_directory(d)}
    if len(engines) == len(set(directories)):
        given = [name for name in settings if name != "verify_hashes"]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: given for a comparison of engine directories, which are compared as they were "
                "built; leave it out"
            )
    elif engines:
        (engine,) = engines.values()
        config = EngineConfig.from_kwargs(**{**_settings(engine), **settings})
    elif config.verify_hashes:
        raise ConfigError("verify_hashes: both sides are checkpoints, which have no hashes; leave it out")
    is_len_asked_for = settings.get("max_model_len") is not None
    left, right = (
        _built(engines[directory])
        if directory in engines
        else _compiled(open_to_plan(directory, replace(config, verify_hashes=False)), config, is_len_asked_for)
        for directory in directories
    )
    return left, right


def _settings(engine: EngineSource) -> dict[str, Any]:
    """What an engine directory was built for, as settings; those that only a build knows are left out."""
    options = asdict(engine.files.manifest.options)
    return {name: value for name, value in options.items() if name in {field.name for field in fields(EngineConfig)}}


def _built(source: EngineSource) -> Side:
    files = source.files
    options = files.manifest.options
    config = EngineConfig(device=source.device_for("auto"), **_settings(source))
    catalog = catalog_of(files.program) if config.device == "cuda" else None
    with guard(source):
        compiled = compile_program(files.graph, config, options.max_model_len, catalog=catalog)
    return Side(
        directory=source.directory,
        manifest=files.manifest,
        config=_model(source),
        options=asdict(options),
        sources={name: (entry.size, entry.sha256) for name, entry in files.manifest.source.items()},
        program=files.program,
        records=compiled.report,
        made_of={name: item.made_of for name, item in files.stored.items()},
        hashes={name: item.sha256 for name, item in files.stored.items()},
    )


def _compiled(source: ModelSource, config: EngineConfig, is_len_asked_for: bool) -> Side:
    model_len = config.max_model_len or source.default_model_len
    if not is_len_asked_for:
        model_len = min(model_len, longest_context(source.model_config))
    check_context(source.model_config, model_len)
    program = compile_program(source.graph(model_len), replace(config, device="cpu"), model_len)
    known = {field.name: getattr(config, field.name) for field in fields(Options) if hasattr(config, field.name)}
    return Side(
        directory=source.directory,
        manifest=None,
        config=_model(source),
        options=known | {"dtype": source.model_config.dtype, "max_model_len": model_len},
        sources={path.name: (path.stat().st_size, "") for path in weight_files(source.directory)},
        program=program,
        records=program.report,
        made_of={name: rows_digest(constant) for name, constant in program.constants.items()},
        hashes={},
    )


def _model(source: ModelSource) -> dict[str, Any]:
    """config.json as it is understood; the type computed in is an option."""
    return {name: value for name, value in asdict(source.model_config).items() if name != "dtype"}
