"""The part of a model that reads pictures: whether there is one here, what it takes, and loading it.

Called by load.py. Where pictures are not read, a model is one of text, and a request with a picture is told why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.api.devices import Device
from albireo.backends.cpu.machine import thread_pool
from albireo.config import EngineConfig
from albireo.errors import UnsupportedModel
from albireo.execution.images import ImageRows, RopeAxes
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.graph.program import Program
from albireo.images.decode import has_pillow
from albireo.images.processor import ImageProcessor, open_processor
from albireo.json_file import read_json
from albireo.models.config import ModelConfig
from albireo.models.layers import embedding_factor
from albireo.models.rope import rope_spec
from albireo.models.text_part import rope_axes, sees_images_both_ways
from albireo.models.vision.tower import VisionTower, has_tower, open_tower, tower_file, tower_tensors

TEXT_ONLY = "this model reads text only"
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
    def model_config(self) -> ModelConfig: ...

    @property
    def parts(self) -> Sequence[object]: ...


@dataclass(frozen=True, slots=True)
class Vision:
    """What reads pictures, before it is loaded.

    Fields: programs: of the tower and of its projector. axes, sees_both_ways: see text_part.py.
    """

    directory: Path
    tower: VisionTower
    processor: ImageProcessor
    programs: tuple[Program, Program]
    axes: tuple[int, ...]
    sees_both_ways: bool

    def weight_bytes(self, device: Device) -> int:
        return sum(device.weight_bytes(program) for program in self.programs)

    @property
    def working_bytes(self) -> int:
        """Of activations, and of keys and values of one layer, for the largest tile that is usual.

        For the largest there may be, addresses are kept; memory is taken when one comes.
        """
        kv = sum(program.kv.block_bytes * num_blocks(program) for program in self.programs)
        largest = self.programs[0].maxima["T"]
        return (sum(program.arena_bytes for program in self.programs) + kv) * min(largest, USUAL_PATCHES) // largest

    def load(
        self, config: EngineConfig, model: ModelConfig, max_model_len: int, progress: Callable[[int], None]
    ) -> ImageRows:
        """Ready to run. Raises: WeightMismatch."""
        tensors = tower_tensors(self.directory)
        try:
            runner = VisionRunner(self.tower, tensors, thread_pool(config.num_threads), self.programs, progress)
        finally:
            tensors.close()

        def rows(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
            return runner.rows(self.processor.normalized(tile))

        axes = self._axes(model, max_model_len)
        return ImageRows(rows, embedding_factor(model), axes, self.sees_both_ways, self.tower.num_deep)

    def _axes(self, model: ModelConfig, max_model_len: int) -> RopeAxes | None:
        if not self.axes:
            return None
        rope = rope_spec(model, max_model_len)
        # pairs that do not turn are behind those that do
        pairs = len(rope.inv_freq)
        return RopeAxes(rope, (*self.axes, *(0,) * pairs)[:pairs])


def open_vision(config: EngineConfig, source: Source, device: Device) -> Vision | str:
    """What reads the pictures of a model; or why none are read, as the end of a sentence.

    Raises: ModelError for files that say nonsense.
    """
    path = source.config_directory / "config.json"
    if not path.is_file():
        return TEXT_ONLY
    data = read_json(path)
    if not has_tower(data):
        return TEXT_ONLY
    problem = _problem(config, source, device)
    if problem:
        return problem
    try:
        tower = open_tower(data, source.model_config.dtype, str(path))
        processor = open_processor(source.config_directory, data)
        programs = vision_programs(tower, device.catalog(), tower.patches(*processor.largest_tile()))
    except UnsupportedModel as error:
        return f"its part that reads them is not computed here: {error}"
    both_ways, rows = sees_images_both_ways(data), tower.rows(*processor.largest_tile())
    narrow = [window for window in source.model_config.windows if window is not None and window < rows]
    if both_ways and narrow:
        return f"of an image's {rows} tokens each sees all, which windows of {min(narrow)} positions do not allow here"
    assert source.vision_directory is not None, "else there is a problem"
    return Vision(source.vision_directory, tower, processor, programs, rope_axes(data), both_ways)


def _problem(config: EngineConfig, source: Source, device: Device) -> str:
    if config.limit_mm_per_prompt.image == 0:
        return "limit_mm_per_prompt leaves the part of the model that reads them out; raise it"
    if device.name != "cpu":
        return "on a GPU they are not read yet; use device=cpu"
    if len(source.parts) > 1:
        return f"with tensor_parallel_size={len(source.parts)} they are not read yet; leave it out"
    if source.vision_directory is None:
        return "this engine directory was built without the part that reads them; build it again"
    if not has_pillow():
        return "they need Pillow, which is not installed: pip install 'albireo[images]'"
    return ""


def stored_vision(source: Source) -> bytearray:
    """What an engine directory keeps of a checkpoint's part that reads pictures; empty: there is none.

    Raises: ModelError, WeightMismatch.
    """
    path = source.config_directory / "config.json"
    if not path.is_file() or source.vision_directory is None:
        return bytearray()
    data = read_json(path)
    if not has_tower(data):
        return bytearray()
    try:
        open_tower(data, source.model_config.dtype, str(path))
        open_processor(source.config_directory, data)
    except UnsupportedModel:
        return bytearray()  # requests are told why
    return tower_file(source.vision_directory)


def image_problem(vision: Vision | str) -> str:
    """Why prompts have no images; empty: they may have some."""
    return vision if isinstance(vision, str) else ""
