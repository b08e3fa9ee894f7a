"""The part of a model that hears: its encoder, and the program by which its decoder listens; or, of one that writes
what frames say, what hears what was said so far.

Called by load.py. What hears is imported where there is such a model. A model that hears is nothing without: where one
that sees would be one of text, this is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from albireo.api.machine.device import Device, ImageNeeds
from albireo.api.machine.tuning import tuned
from albireo.api.media.perception import chosen_precision, numbers_given
from albireo.api.programs import compile_program
from albireo.api.sources.source import ModelSource
from albireo.compiler.passes import choose_precision
from albireo.config import EngineConfig
from albireo.errors import ConfigError, InvariantError, ModelError
from albireo.execution.images import ImageRows
from albireo.execution.listening import Listener
from albireo.execution.runner import DeviceModel
from albireo.execution.vision import TowerModel, VisionRunner, num_blocks, rows_program, vision_programs
from albireo.execution.writing import Writer
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.image_input import Tile
from albireo.json_file import read_json
from albireo.models.checkpoint.weights import check_weights, weight_files
from albireo.models.config import ModelConfig
from albireo.models.speech import SAMPLE_TYPES, STREAMING_TYPES
from albireo.models.vision.tensors import TowerTensors, tower_tensors
from albireo.models.vision.tower import check_tensors, listens

if TYPE_CHECKING:
    from albireo.api.media.sounds import Heard
    from albireo.api.transcribe.frames import Frames
    from albireo.models.hearing.fast_conformer import FastConformerTower
    from albireo.models.hearing.lasr import LasrTower
    from albireo.models.hearing.moonshine import MoonshineTower
    from albireo.models.hearing.wav2vec2 import Wav2Vec2Tower
    from albireo.models.hearing.wav2vec2_bert import Wav2Vec2BertTower
    from albireo.models.hearing.whisper import WhisperTower

    SoundTower = WhisperTower | MoonshineTower | FastConformerTower | Wav2Vec2Tower | LasrTower | Wav2Vec2BertTower


@dataclass(frozen=True, slots=True)
class Hearing:
    """What hears, before it is loaded.

    Fields:
        of_encoder: programs of its two parts, and of its stem.
        listening: the program of what listens to it, which writes the model's own KV cache; None: nothing does.
        frames: how frames become a text, where nothing listens. predicting: programs of what hears what was said.
    """

    source: ModelSource
    tower: SoundTower
    sounds: Heard
    of_encoder: tuple[Program, ...]
    listening: Program | None
    frames: Frames | None = None
    predicting: tuple[Program, ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        return *self.of_encoder, *(() if self.listening is None else (self.listening,)), *self.predicting

    def weight_bytes(self, device: Device) -> int:
        return sum(device.weight_bytes(program) for program in self.programs)

    def working_bytes(self, device: Device) -> int:
        """Of activations, and of keys and values of one layer of the encoder; on a GPU of what steps bring, too."""
        kv = sum(program.kv.block_bytes * num_blocks(program) for program in self.of_encoder)
        brought = 0 if device.name == "cpu" else self._brought_bytes
        return kv + sum(program.arena_bytes for program in self.programs) + brought

    def needs(self, device: Device) -> ImageNeeds:
        """What is to be left free behind the model for what listens, which is loaded behind it."""
        listening = self._listening
        return ImageNeeds(device.weight_bytes(listening) + listening.arena_bytes + self._brought_bytes, has_axes=False)

    @property
    def _listening(self) -> Program:
        if self.listening is None:
            raise InvariantError("nothing listens to the sounds of this model")
        return self.listening

    @property
    def _brought_bytes(self) -> int:
        """Of the rows that the largest step of the encoder is given, or of what listens to it."""
        width = self.source.model_config.hidden_size
        most = 0 if self.listening is None else self.listening.maxima["T"]
        return 4 * max(most * width, numbers_given(self.of_encoder[0]))

    @property
    def facts(self) -> dict[str, float | int]:
        """For whoever shows what it is: seconds of a sound that is heard at once, and positions that it takes."""
        positions = self.tower.num_positions if self.frames is None else 1
        return {"seconds": self.sounds.seconds, "positions": positions}

    def tuned(self, directory: Path, num_threads: int | None) -> Hearing:
        """With what was measured for this machine."""
        measured = (tuned(program, directory, num_threads)[0] for program in self.programs)
        listens = self.listening is not None
        return replace(
            self,
            of_encoder=tuple(islice(measured, len(self.of_encoder))),
            listening=next(measured) if listens else None,
            predicting=tuple(measured),
        )

    def _heard(
        self, device: Device, config: EngineConfig, progress: Callable[[int], None]
    ) -> Callable[[Tile], NDArray[np.float32]]:
        """The encoder, ready to run. Raises: WeightMismatch."""

        def opened(program: Program, tensors: TowerTensors) -> TowerModel:
            return device.tower(config, program, tensors, num_blocks(program), progress)

        with self._tensors() as tensors:
            runner = VisionRunner(self.tower, tensors, self.of_encoder, opened)
        return lambda tile: runner.rows(np.frombuffer(tile.pixels, np.float32).reshape(tile.height, tile.width))

    def encoder(self, device: Device, config: EngineConfig, progress: Callable[[int], None]) -> ImageRows:
        """Ready to run: what a step is given of sounds. Raises: WeightMismatch."""
        hears = self._heard(device, config, progress)

        def rows(tile: Tile) -> NDArray[np.float32]:
            found = hears(tile)
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
            return device.listener(config, model, self._listening, tensors, progress)

    def writer(
        self,
        device: Device,
        config: EngineConfig,
        model: DeviceModel,
        program: Program,
        progress: Callable[[int], None],
    ) -> Writer:
        """Ready to run: what writes what frames say. Args: model: the head; program: its. Raises: WeightMismatch."""
        assert self.frames is not None, "nothing else writes frames"
        hears, most = self._heard(device, config, progress), min(program.maxima["R"], program.maxima["T"])
        with self._tensors() as tensors:
            models = [device.tower(config, each, tensors, 1, progress) for each in self.predicting]
            said = self.frames.said
            if said is not None:
                said.hold({name: tensors.tensor(name).to_float32() for name in said.host_tensors})
        return Writer(hears, self.frames.reader(model, most, models))

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
    tower, sounds, graph, frames = _opens(data["model_type"])(data, model, source.config_directory)
    if frames is not None and config.speculative_config is not None:
        raise ConfigError("speculative_config: this model writes what frames say, which nobody guesses; leave it out")
    more = () if frames is None or frames.said is None else frames.said.graphs()
    _check_weights(source, tower, (*more, *(() if graph is None else (graph,))), frames)
    choose = chosen_precision(source.quantization)
    listening = None
    for each in (*more, *(() if graph is None else (graph,))):
        if choose is not None:
            choose_precision.run(each, choose)
    if graph is not None:
        listening = compile_program(
            graph, config, program.maxima["T"], None, device.catalog(), has_block_groups=False, cache=program.kv
        )
    catalog = device.catalog()
    of_encoder = vision_programs(tower, catalog, tower.patches(*tower.largest), choose)
    predicting = tuple(rows_program(each, catalog, 1) for each in more)
    return Hearing(source, tower, sounds, of_encoder, listening, frames, predicting)


class _Parts(NamedTuple):
    """What a family hears with. Fields: graph: what listens; None: nothing does, and frames say what is written."""

    tower: SoundTower
    sounds: Heard
    graph: Graph | None
    frames: Frames | None = None


def _opens(model_type: str) -> Callable[[dict[str, Any], ModelConfig, Path], _Parts]:
    if model_type.startswith("parakeet_") or model_type in STREAMING_TYPES:
        return _parakeet
    if model_type in SAMPLE_TYPES:
        return _samples
    return {
        "canary": _canary,
        "cohere_asr": _cohere_asr,
        "lasr_ctc": _lasr,
        "moonshine": _moonshine,
        "wav2vec2-bert": _wav2vec2_bert,
    }.get(model_type, _whisper)


def _samples(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import normed_waves
    from albireo.api.transcribe.frames import ctc_frames
    from albireo.models.hearing.wav2vec2 import open_data2vec_audio, open_omniasr, open_wav2vec2
    from albireo.models.hearing.wavlm import open_wavlm

    where, kind = str(directory / "config.json"), data["model_type"]
    others = {"omniasr_ctc": open_omniasr, "data2vec-audio": open_data2vec_audio, "wavlm": open_wavlm}
    tower = others.get(kind, open_wav2vec2)(data, model.dtype, where)
    return _Parts(tower, normed_waves(directory, kind), None, ctc_frames(data, model, where))


def _wav2vec2_bert(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import bert_mel
    from albireo.api.transcribe.frames import ctc_frames
    from albireo.models.hearing.wav2vec2_bert import open_wav2vec2_bert

    where = str(directory / "config.json")
    tower = open_wav2vec2_bert(data, model.dtype, where)
    return _Parts(tower, bert_mel(directory, data), None, ctc_frames(data, model, where))


def _lasr(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import lasr_mel
    from albireo.api.transcribe.frames import ctc_frames
    from albireo.models.hearing.lasr import open_lasr

    where = str(directory / "config.json")
    return _Parts(open_lasr(data, model.dtype, where), lasr_mel(directory, data), None, ctc_frames(data, model, where))


def _parakeet(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import parakeet_mel
    from albireo.api.transcribe.frames import ctc_frames, transducer_frames
    from albireo.models.hearing import parakeet

    where, is_ctc = str(directory / "config.json"), data["model_type"] == "parakeet_ctc"
    opens = {
        "parakeet_ctc": parakeet.open_parakeet_ctc,
        **dict.fromkeys(STREAMING_TYPES, parakeet.open_streaming_transducer),
    }.get(data["model_type"], parakeet.open_parakeet_transducer)
    tower = opens(data, model.dtype, where)
    frames = (ctc_frames if is_ctc else transducer_frames)(data, model, where)
    return _Parts(tower, parakeet_mel(directory, data), None, frames)


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


def _canary(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import parakeet_mel
    from albireo.models.hearing.canary import open_canary
    from albireo.models.speech.canary import listening

    tower = open_canary(data, model.dtype, str(directory / "config.json"))
    if tower.encoder.hidden_size != model.hidden_size:
        raise ModelError(
            f"{directory}: the encoder's hidden_size={tower.encoder.hidden_size} is not the decoder's "
            f"{model.hidden_size}: they are of different models"
        )
    return _Parts(tower, parakeet_mel(directory, data, 128), listening(model))


def _moonshine(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import moonshine_waves
    from albireo.models.hearing.moonshine import open_moonshine
    from albireo.models.speech.moonshine import listening

    tower = open_moonshine(data, model.dtype, str(directory / "config.json"))
    return _Parts(tower, moonshine_waves(directory), listening(model))


def _cohere_asr(data: dict[str, Any], model: ModelConfig, directory: Path) -> _Parts:
    from albireo.api.media.sounds import cohere_mel
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


def _check_weights(source: ModelSource, tower: SoundTower, graphs: Sequence[Graph], frames: Frames | None) -> None:
    """Args: graphs: of what listens, or hears what was said.

    Raises: WeightMismatch where there are weights, and not the model's; ModelError where they were left out.
    """
    if source.vision_directory is None:
        raise ModelError(f"{source.directory}: was built without the part that hears; build it again")
    if not weight_files(source.vision_directory):
        return
    tensors = tower_tensors(source.vision_directory)
    try:
        check_tensors(tower, tensors)
        beside: tuple[str, ...] = ("encoder.*", "encoder_decoder_proj.*")
        if frames is not None:
            read = [name for graph in graphs for name in graph.constants]
            held = () if frames.said is None else frames.said.host_tensors
            beside = ("encoder*", "feature_*", "masked_spec_embed", "prompt_projector.*", *read, *held)
        for graph in graphs:
            check_weights(graph, tensors, ignorable=beside)
    finally:
        tensors.close()
