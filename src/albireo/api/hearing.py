"""The part of a model that hears: its encoder, and the program by which its decoder listens.

Called by load.py. What hears is imported where there is such a model. A model that hears is nothing without: where one
that sees would be one of text, this is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from albireo.api.device import Device, ImageNeeds
from albireo.api.perception import chosen_precision, numbers_given
from albireo.api.programs import compile_program
from albireo.api.source import ModelSource
from albireo.api.tuning import tuned
from albireo.compiler.passes import choose_precision
from albireo.config import EngineConfig
from albireo.errors import ConfigError, ModelError
from albireo.execution.images import ImageRows
from albireo.execution.listening import Listener
from albireo.execution.runner import DeviceModel
from albireo.execution.vision import TowerModel, VisionRunner, num_blocks, vision_programs
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.image_input import Tile
from albireo.json_file import read_json
from albireo.models.config import ModelConfig
from albireo.models.vision.tensors import TowerTensors, tower_tensors
from albireo.models.vision.tower import check_tensors, listens
from albireo.models.weights import check_weights, weight_files

if TYPE_CHECKING:
    from albireo.api.sounds import Heard
    from albireo.models.hearing.fast_conformer import FastConformerTower
    from albireo.models.hearing.moonshine import MoonshineTower
    from albireo.models.hearing.whisper import WhisperTower

    SoundTower = WhisperTower | MoonshineTower | FastConformerTower


@dataclass(frozen=True, slots=True)
class Hearing:
    """What hears, before it is loaded.

    Fields: programs: of the encoder's two parts, and of what listens to it, which writes the model's own KV cache; then
        of the encoder's stem.
    """

    source: ModelSource
    tower: SoundTower
    sounds: Heard
    programs: tuple[Program, ...]

    def weight_bytes(self, device: Device) -> int:
        return sum(device.weight_bytes(program) for program in self.programs)

    def working_bytes(self, device: Device) -> int:
        """Of activations, and of keys and values of one layer of the encoder; on a GPU of what steps bring, too."""
        kv = sum(program.kv.block_bytes * num_blocks(program) for program in self._of_encoder)
        brought = 0 if device.name == "cpu" else self._brought_bytes
        return kv + sum(program.arena_bytes for program in self.programs) + brought

    def needs(self, device: Device) -> ImageNeeds:
        """What is to be left free behind the model for what listens, which is loaded behind it."""
        listening = self.programs[2]
        return ImageNeeds(device.weight_bytes(listening) + listening.arena_bytes + self._brought_bytes, has_axes=False)

    @property
    def _brought_bytes(self) -> int:
        """Of the rows that the largest step of the encoder is given, or of what listens to it."""
        width = self.source.model_config.hidden_size
        return 4 * max(self.programs[2].maxima["T"] * width, numbers_given(self.programs[0]))

    @property
    def facts(self) -> dict[str, float | int]:
        """For whoever shows what it is: seconds of a sound that is heard at once, and positions that it takes."""
        return {"seconds": self.sounds.seconds, "positions": self.tower.num_positions}

    def tuned(self, directory: Path, num_threads: int | None) -> Hearing:
        """With what was measured for this machine."""
        return replace(self, programs=tuple(tuned(program, directory, num_threads)[0] for program in self.programs))

    @property
    def _of_encoder(self) -> tuple[Program, ...]:
        return *self.programs[:2], *self.programs[3:]

    def encoder(self, device: Device, config: EngineConfig, progress: Callable[[int], None]) -> ImageRows:
        """Ready to run: what a step is given of sounds. Raises: WeightMismatch."""

        def opened(program: Program, tensors: TowerTensors) -> TowerModel:
            return device.tower(config, program, tensors, num_blocks(program), progress)

        with self._tensors() as tensors:
            runner = VisionRunner(self.tower, tensors, self._of_encoder, opened)

        def rows(tile: Tile) -> NDArray[np.float32]:
            found = runner.rows(np.frombuffer(tile.pixels, np.float32).reshape(tile.height, tile.width))
            # all positions that are a sound's are written, of which those of nothing are not read
            return np.pad(found, ((0, self.tower.num_positions - len(found)), (0, 0)))

        def heard(tile: Tile) -> int:
            return self.tower.rows(tile.height, tile.width)

        is_one_size = heard_whole(self.tower)
        return ImageRows(rows, heard=None if is_one_size else heard)

    def listener(
        self, device: Device, config: EngineConfig, model: DeviceModel, progress: Callable[[int], None]
    ) -> Listener:
        """Ready to run: what is given these rows. Args: model: whose cache is written. Raises: WeightMismatch."""
        with self._tensors() as tensors:
            return device.listener(config, model, self.programs[2], tensors, progress)

    def _tensors(self) -> closing[TowerTensors]:
        assert self.source.vision_directory is not None, "open_hearing() refuses that"
        return closing(tower_tensors(self.source.vision_directory))


def open_hearing(config: EngineConfig, source: ModelSource, device: Device, program: Program) -> Hearing | None:
    """What hears for a model; None: it is one that does not. Reads no weight.

    Args: program: of its decoder.
    Raises: ConfigError saying what does not go with a model that hears; ModelError; UnsupportedModel.
    """
    path = source.config_directory / "config.json"
    data = read_json(path) if path.is_file() else {}
    if not listens(data):
        return None
    _refuse(config, source)
    model = source.model_config
    opens = {"cohere_asr": _cohere_asr, "moonshine": _moonshine}.get(data["model_type"], _whisper)
    tower, sounds, graph = opens(data, model, source.config_directory)
    if not heard_whole(tower) and device.name != "cpu":
        raise ConfigError(
            f"device={device.name}: this model's decoder listens to sounds of any length on the CPU alone"
        )
    _check_weights(source, tower, graph)
    choose = chosen_precision(source.quantization)
    if choose is not None:
        choose_precision.run(graph, choose)
    third = compile_program(
        graph, config, program.maxima["T"], None, device.catalog(), has_block_groups=False, cache=program.kv
    )
    first, second, *before = vision_programs(tower, device.catalog(), tower.patches(*tower.largest), choose)
    return Hearing(source, tower, sounds, (first, second, third, *before))


class _Parts(NamedTuple):
    """What a family hears with. Fields: graph: what listens."""

    tower: SoundTower
    sounds: Heard
    graph: Graph


def _whisper(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.models.hearing.whisper import open_whisper
    from albireo.models.speech.whisper import listening
    from albireo.sounds.features import open_log_mel

    tower, spectra = open_whisper(data, model.dtype, str(directory / "config.json")), open_log_mel(directory)
    if (spectra.num_frames, spectra.num_mels) != tower.largest:
        raise ModelError(
            f"{directory}: preprocessor_config.json makes {spectra.num_frames:,} frames of {spectra.num_mels} bands of "
            f"a sound, the encoder of config.json hears {tower.largest[0]:,} of {tower.largest[1]}: they are of "
            "different models"
        )
    return _Parts(tower, spectra, listening(model))


def _moonshine(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.sounds import moonshine_waves
    from albireo.models.hearing.moonshine import open_moonshine
    from albireo.models.speech.moonshine import listening

    tower = open_moonshine(data, model.dtype, str(directory / "config.json"))
    return _Parts(tower, moonshine_waves(directory), listening(model))


def _cohere_asr(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.sounds import cohere_mel
    from albireo.models.hearing.cohere_asr import open_cohere_asr
    from albireo.models.speech.cohere_asr import listening

    tower = open_cohere_asr(data, model.dtype, str(directory / "config.json"))
    return _Parts(tower, cohere_mel(directory, data), listening(model))


def heard_whole(tower: SoundTower) -> bool:
    """Whether a sound is as long as the longest, with silence behind."""
    return tower.stem is None


def _refuse(config: EngineConfig, source: ModelSource) -> None:
    """What is not done yet for a model that hears. Raises: ConfigError naming it."""
    why = "this model writes down what it hears, and"
    if len(source.parts) > 1:
        raise ConfigError(f"tensor_parallel_size={len(source.parts)}: {why} ranks do not share it yet; leave it out")
    if config.enable_lora:
        raise ConfigError(f"enable_lora: {why} adapters of such models are not computed yet; leave it out")
    asked = config.speculative_config
    if asked is not None and asked.method != "ngram":
        raise ConfigError(f"speculative_config: {why} what guesses for it would have to hear, too; use method ngram")


def _check_weights(source: ModelSource, tower: SoundTower, graph: Graph) -> None:
    """Raises: WeightMismatch where there are weights, and not the model's; ModelError where they were left out."""
    if source.vision_directory is None:
        raise ModelError(f"{source.directory}: was built without the part that hears; build it again")
    if not weight_files(source.vision_directory):
        return
    tensors = tower_tensors(source.vision_directory)
    try:
        check_tensors(tower, tensors)
        check_weights(graph, tensors, ignorable=("encoder.*", "encoder_decoder_proj.*"))
    finally:
        tensors.close()
