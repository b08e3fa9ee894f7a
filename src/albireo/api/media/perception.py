"""The part of a model that reads pictures, or hears sounds, of prompts: whether there is one here, what it takes, and
loading it.

Called by load.py. What prepares them is imported where a model reads them. Where there is none, a model is one of text,
and a request with a picture or a sound is told why. Of models that write down one sound alone: hearing.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from albireo.api.machine.device import Device, ImageNeeds
from albireo.compiler.passes.choose_precision import Choice
from albireo.config import EngineConfig
from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.execution.images import ImageRows, RopeAxes
from albireo.execution.vision import TowerModel, VisionRunner, num_blocks, vision_programs
from albireo.graph.program import Program
from albireo.image_input import Tile
from albireo.images.decode import has_pillow
from albireo.json_file import read_json
from albireo.models.blocks.layers import embedding_factor
from albireo.models.blocks.rope import rope_spec
from albireo.models.checkpoint.weights import weight_files
from albireo.models.config import ModelConfig
from albireo.models.settings.text_part import (
    inner,
    multiplies_images,
    rope_axes,
    sees_images_beyond_windows,
    sees_images_both_ways,
    token_of_images,
)
from albireo.models.vision.tensors import TowerTensors
from albireo.models.vision.tower import (
    VisionTower,
    check_tensors,
    has_tower,
    hears,
    listens,
    open_ear,
    open_tower,
    sees,
    tower_file,
    tower_tensors,
)

if TYPE_CHECKING:
    from albireo.images.prepared import ImageProcessor
    from albireo.sounds.prepared import SoundProcessor
    from albireo.videos.prepared import VideoProcessor

F32 = NDArray[np.float32]

TEXT_ONLY = "this model reads text only"
#: Why there are no pictures, and why no sounds.
HEARS, SEES = "this model hears, and sees none", "this model hears none"
_NOT_COMPUTED = "its part that reads them is not computed here"
#: What schemes begin with by which a tower that hears is rounded, too: to 8 bits, as its rows are many, and multiplied.
#: Others leave it as it is.
_IN_8_BITS = ("int8", "int4")
#: Of towers what stays as it is: convolutions and projectors are small, and all else follows from them.
_STAY = (".conv", "multi_modal_projector.")
#: Tiles that a step reads. On a processor one takes about a second, in which nobody's answer goes on.
MAX_STEP_TILES = {"cpu": 1, "cuda": 8}
#: Of a picture of a million pixels, where patches have 16 on a side.
USUAL_PATCHES = 4096


class Source(Protocol):
    """Of a ModelSource, what is asked here: a directory without weights has it, too."""

    @property
    def config_directory(self) -> Path: ...

    @property
    def vision_directory(self) -> Path | None: ...

    @property
    def perception_problem(self) -> str: ...

    @property
    def model_config(self) -> ModelConfig: ...

    @property
    def parts(self) -> Sequence[object]: ...

    @property
    def quantization(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Perception(ABC):
    """What reads pictures or hears sounds, before it is loaded.

    Fields: programs: of the tower and of its projector, then of its stem. axes, sees_both_ways: see text_part.py.
    token: that those of a picture count as, where layers have an embedding of each token. is_multiplied: rows are, by
    what embeddings are.
    """

    hears: ClassVar[bool]
    directory: Path
    tower: VisionTower
    programs: tuple[Program, ...]
    axes: tuple[int, ...]
    sees_both_ways: bool
    token: int | None
    is_multiplied: bool

    @abstractmethod
    def read(self, tile: Tile) -> F32:
        """What the tower is given of a tile."""

    @property
    def all_programs(self) -> tuple[Program, ...]:
        """Of all towers."""
        return self.programs

    def with_programs(self, programs: Iterator[Program]) -> Self:
        """With others in place of all_programs, as many."""
        return replace(self, programs=tuple(islice(programs, len(self.programs))))

    def weight_bytes(self, device: Device) -> int:
        return sum(device.weight_bytes(program) for program in self.all_programs)

    def working_bytes(self, device: Device, needs: ImageNeeds) -> int:
        """Of activations, and of keys and values of one layer: on the CPU for the largest tile that is usual. For the
        largest there may be, addresses are kept there; memory is taken when one comes. A GPU has it all, and room for
        what steps bring."""
        kv = sum(program.kv.block_bytes * num_blocks(program) for program in self.programs)
        largest, each = self.programs[0].maxima["T"], sum(program.arena_bytes for program in self.programs) + kv
        return each * min(largest, USUAL_PATCHES) // largest if device.name == "cpu" else each + needs.room_bytes

    def needs(self, program: Program, model: ModelConfig) -> ImageNeeds:
        """Of steps with pictures of a program of the text part; and of the tower's, which run in turn with these."""
        numbers = (1 + len(self.tower.deep_layers)) * model.hidden_size + (model.head_dim if self.axes else 0)
        rooms = [program.maxima["T"] * numbers, *map(numbers_given, self.programs)]
        return ImageNeeds(4 * max(rooms), bool(self.axes))

    def load(
        self,
        device: Device,
        config: EngineConfig,
        model: ModelConfig,
        max_model_len: int,
        progress: Callable[[int], None],
    ) -> ImageRows:
        """Ready to run. Raises: WeightMismatch; OutOfMemory where a GPU has no room for it."""
        rows, ear = self.runner(device, config, progress), self.ear_runner(device, config, progress)
        # the residual stream is kept divided
        axes, divided = self._axes(model, max_model_len), model.multipliers.residual
        factor, num_deep = 1.0 if self.is_multiplied else embedding_factor(model) * divided, len(self.tower.deep_layers)
        are_embeddings = model.pooling is not None and model.pooling.is_of_pictures
        parts = rows, factor, axes, self.sees_both_ways, num_deep, divided, self.token, ear
        return ImageRows(*parts, are_embeddings=are_embeddings)

    def runner(self, device: Device, config: EngineConfig, progress: Callable[[int], None]) -> Callable[[Tile], F32]:
        """The tower, ready to run. Raises: as load()."""
        tensors = tower_tensors(self.directory, self.hears)

        def opened(program: Program, tensors: TowerTensors) -> TowerModel:
            return device.tower(config, program, tensors, num_blocks(program), progress)

        try:
            runner = VisionRunner(self.tower, tensors, self.programs, opened)
        finally:
            tensors.close()
        return lambda tile: runner.rows(self.read(tile))

    def ear_runner(
        self, device: Device, config: EngineConfig, progress: Callable[[int], None]
    ) -> Callable[[Tile], F32] | None:
        """Of what hears, where that is another tower. Raises: as load()."""
        return None

    def _axes(self, model: ModelConfig, max_model_len: int) -> RopeAxes | None:
        if not self.axes:
            return None
        rope = rope_spec(model, max_model_len)
        # pairs that do not turn are behind those that do
        pairs = len(rope.inv_freq)
        return RopeAxes(rope, (*self.axes, *(0,) * pairs)[:pairs])


@dataclass(frozen=True, slots=True)
class Vision(Perception):
    """What reads pictures. Fields: videos: what prepares them; or why none are read, as the end of a sentence. ear:
    what hears beside; or why nothing does."""

    hears: ClassVar[bool] = False
    processor: ImageProcessor
    videos: VideoProcessor | str
    ear: Ear | str = SEES

    def read(self, tile: Tile) -> F32:
        pixels = np.frombuffer(tile.pixels, np.uint8).reshape(tile.height, tile.width, -1)
        is_of_video = pixels.shape[2] > 3
        if is_of_video and not isinstance(self.videos, str):
            return self.videos.normalized(pixels)
        return self.processor.normalized(pixels)

    @property
    def all_programs(self) -> tuple[Program, ...]:
        return self.programs if isinstance(self.ear, str) else (*self.programs, *self.ear.programs)

    def with_programs(self, programs: Iterator[Program]) -> Self:
        seeing = replace(self, programs=tuple(islice(programs, len(self.programs))))
        return seeing if isinstance(self.ear, str) else replace(seeing, ear=self.ear.with_programs(programs))

    def working_bytes(self, device: Device, needs: ImageNeeds) -> int:
        own = Perception.working_bytes(self, device, needs)
        # what steps bring has one room
        return own if isinstance(self.ear, str) else own + self.ear.working_bytes(device, ImageNeeds(0, False))

    def needs(self, program: Program, model: ModelConfig) -> ImageNeeds:
        own = Perception.needs(self, program, model)
        if isinstance(self.ear, str):
            return own
        return replace(own, room_bytes=max(own.room_bytes, self.ear.needs(program, model).room_bytes))

    def ear_runner(
        self, device: Device, config: EngineConfig, progress: Callable[[int], None]
    ) -> Callable[[Tile], F32] | None:
        return None if isinstance(self.ear, str) else self.ear.runner(device, config, progress)


@dataclass(frozen=True, slots=True)
class Ear(Perception):
    """What hears sounds. Fields: sights: why nothing is seen."""

    hears: ClassVar[bool] = True
    processor: SoundProcessor
    sights: str = HEARS

    def read(self, tile: Tile) -> F32:
        return np.frombuffer(tile.pixels, np.float32).reshape(tile.height, tile.width)


def numbers_given(program: Program) -> int:
    """Of the largest tile: what a tower's program reads of it, rotations included."""
    widths = {call.attrs["place"]: int(call.attrs["width"]) for call in program.calls if call.family == "given"}
    turned = max((int(call.attrs["head_dim"]) for call in program.calls if "rope" in call.args), default=0)
    return program.maxima["T"] * (sum(widths.values()) + turned)


def open_perception(config: EngineConfig, source: Source, device: Device) -> Perception | str:
    """What reads the pictures of a model, or hears its sounds; or why nothing does, as the end of a sentence.

    Raises: ModelError for files that say nonsense.
    """
    towers = _towers(source)
    if not towers:
        return source.perception_problem or TEXT_ONLY
    found = {hears: _perceived(config, source, device, hears) for hears in towers}
    eye, ear = found.get(False, HEARS), found.get(True, SEES)
    if isinstance(eye, Vision) and not isinstance(ear, Vision):
        return replace(eye, ear=ear)
    if isinstance(ear, Ear) and isinstance(eye, str):
        return replace(ear, sights=eye)
    return found[towers[0]]


def _perceived(config: EngineConfig, source: Source, device: Device, hears: bool) -> Vision | Ear | str:
    """What reads the pictures of a model, or what hears its sounds; or why nothing does."""
    opened = _open(source, hears)
    problem = opened if isinstance(opened, str) else ""
    problem = _unwanted(config, source, hears) or problem
    if isinstance(opened, str) or problem:
        return problem
    is_unwanted = config.limit_mm_per_prompt.video == 0
    videos = "limit_mm_per_prompt allows none; raise it" if is_unwanted else opened.videos
    largest_tiles = [opened.processor.largest_tile()]
    if not isinstance(videos, str):
        largest_tiles.append(videos.largest_tile())
    try:
        largest = max(opened.tower.patches(*tile) for tile in largest_tiles)
        choose = chosen_precision(source.quantization) if hears and device.name == "cpu" else None
        programs = vision_programs(opened.tower, device.catalog(), largest, choose)
    except UnsupportedModel as error:
        return f"{_NOT_COMPUTED}: {error}"
    rows = max(opened.tower.rows(*tile) for tile in largest_tiles)
    narrow = [window for window in source.model_config.windows if window is not None and window < rows]
    if sees_images_beyond_windows(opened.config) and narrow:
        return f"of an image's {rows} tokens each sees all, which windows of {min(narrow)} positions do not allow here"
    axes, token = rope_axes(opened.config), None
    blocks = source.model_config.blocks
    # where some tokens have no embedding of each layer, those of pictures and sounds are among them
    if blocks.layer_width and blocks.layer_entries is None:
        where = str(source.config_directory / "config.json")
        token = token_of_images(opened.config, where, source.model_config.vocab_size)
    both_ways = sees_images_both_ways(opened.config)
    is_multiplied = multiplies_images(opened.config)
    parts = opened.directory, opened.tower, programs, axes, both_ways, token, is_multiplied
    from albireo.sounds.prepared import SoundProcessor

    processor = opened.processor
    if isinstance(processor, SoundProcessor):
        return Ear(*parts, processor)
    return Vision(*parts, processor, videos)


def chosen_precision(quantization: str | None) -> Choice | None:
    """How a tower that hears is rounded by a scheme; None: not at all."""
    return _rounded if (quantization or "").startswith(_IN_8_BITS) else None


def _rounded(name: str, role: str | None) -> str | None:
    return None if any(part in name for part in _STAY) else "int8"


def stored_vision(source: Source) -> bytearray:
    """What an engine directory keeps of a checkpoint's part that reads pictures, or hears; empty: there is none.

    Raises: ModelError for files that say nonsense.
    """
    path, folder = source.config_directory / "config.json", source.vision_directory
    if folder is None:
        return bytearray()
    if path.is_file() and listens(read_json(path)):
        return tower_file(folder)
    there = [hears for hears in _towers(source) if not isinstance(_open(source, hears), str)]
    return tower_file(folder, *there) if there else bytearray()


class _Opened(NamedTuple):
    """What says how pictures, or sounds, are read. config: what config.json holds. videos: why there are none, else."""

    directory: Path
    config: dict[str, Any]
    tower: VisionTower
    processor: ImageProcessor | SoundProcessor
    videos: VideoProcessor | str


def _towers(source: Source) -> tuple[bool, ...]:
    """Of each tower of a model whether it hears; none of a model of text, and of one that listens."""
    path = source.config_directory / "config.json"
    data = read_json(path) if path.is_file() else {}
    if not has_tower(data) or listens(data):
        return ()
    return tuple(hears_so for hears_so, is_there in ((False, sees(data)), (True, hears(data))) if is_there)


def _open(source: Source, hears: bool) -> _Opened | str:
    """A model's files, or why they do not tell: text is served all the same."""
    path, folder = source.config_directory / "config.json", source.vision_directory
    config = inner(read_json(path))
    if folder is None:
        return "this engine directory was built without the part that reads them; build it again"
    from albireo.images.processor import open_processor
    from albireo.images.settings import IMAGE_FILE, PROCESSOR_FILE
    from albireo.sounds.features import says_of_sounds
    from albireo.sounds.processor import open_sound_processor

    names = IMAGE_FILE, PROCESSOR_FILE
    is_there = any((source.config_directory / name).is_file() for name in names)
    if not is_there or (hears and not says_of_sounds(source.config_directory)):
        return f"there is no {IMAGE_FILE} that says how they are prepared; copy it from where the checkpoint is from"
    try:
        tower = (open_ear if hears else open_tower)(config, source.model_config.dtype, str(path))
        _check_weights(tower, folder, hears)
        opens = open_sound_processor if hears else open_processor
        processor = opens(source.config_directory, config)
        _check_rows(tower, processor, source.config_directory)
        videos = HEARS if hears else _open_videos(source.config_directory, config)
        return _Opened(folder, config, tower, processor, videos)
    except (UnsupportedModel, WeightMismatch) as error:
        return f"{_NOT_COMPUTED}: {error}"


def _open_videos(directory: Path, config: dict[str, Any]) -> VideoProcessor | str:
    """What prepares a model's videos, or why they are not read: pictures are all the same."""
    from albireo.videos.processor import open_video_processor, reads_videos

    if not reads_videos(config):
        return "of this model pictures alone are read here"
    try:
        return open_video_processor(directory, config)
    except UnsupportedModel as error:
        return f"{_NOT_COMPUTED}: {error}"


def _check_weights(tower: VisionTower, directory: Path, hears: bool) -> None:
    """Raises: WeightMismatch where there are weights, and not the tower's."""
    if not weight_files(directory):
        return
    tensors = tower_tensors(directory, hears)
    try:
        check_tensors(tower, tensors)
    finally:
        tensors.close()


def _check_rows(tower: VisionTower, processor: ImageProcessor | SoundProcessor, directory: Path) -> None:
    """Raises: ModelError where the tower gives other rows of the largest tile than its prompts have tokens for."""
    high, wide = processor.largest_tile()
    counted = processor.rows(high, wide)
    told = f"{directory}: a tile of {high:,} x {wide:,} becomes {counted:,} tokens as files say that prepare it"
    try:
        given = tower.rows(high, wide)
    except InvariantError as error:
        what = f"{told}, and config.json has another tower: {error}; both must be of one checkpoint"
        raise ModelError(what) from None
    if given != counted:
        raise ModelError(f"{told}, and {given:,} rows of config.json's tower; both must be of one checkpoint")


def _unwanted(config: EngineConfig, source: Source, hears_sounds: bool) -> str:
    """Why pictures, or sounds, are not read here and now."""
    limits = config.limit_mm_per_prompt
    if (limits.audio if hears_sounds else limits.image) == 0:
        return "limit_mm_per_prompt leaves the part of the model that reads them out; raise it"
    if len(source.parts) > 1:
        return f"with tensor_parallel_size={len(source.parts)} they are not read yet; leave it out"
    if not hears_sounds and not has_pillow():
        return "they need Pillow, which is not installed: pip install 'albireo[images]'"
    return ""


def is_hearing(source: Source) -> bool:
    """Whether what a model reads beside text is sounds, and nothing else."""
    return _towers(source) == (True,)


class MediaProblems(NamedTuple):
    """Why prompts have no images, no sounds and no videos, as the end of a sentence; empty: they may have some."""

    images: str
    sounds: str
    videos: str


def media_problems(source: Source, perception: Perception | str) -> MediaProblems:
    """Of a model, whose perception it is."""
    problem = perception if isinstance(perception, str) else ""
    if problem == TEXT_ONLY:
        return MediaProblems(TEXT_ONLY, TEXT_ONLY, TEXT_ONLY)
    if isinstance(perception, Ear):
        return MediaProblems(perception.sights, "", perception.sights)
    if is_hearing(source):
        return MediaProblems(HEARS, problem, HEARS)
    if not isinstance(perception, Vision):
        return MediaProblems(problem, problem if True in _towers(source) else SEES, problem)
    videos = perception.videos if isinstance(perception.videos, str) else ""
    return MediaProblems("", perception.ear if isinstance(perception.ear, str) else "", videos)
