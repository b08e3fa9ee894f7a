"""VisionTower: what is to be computed of a tile, as two graphs and what the host does before, between and behind them.

Opened by the front doors, run by execution/vision.py. The tower's program reads patches and gives hidden states; the
host puts those of neighbours together; the projector's program makes of them rows that stand in place of embeddings.
Towers that hear have a stem before all that, and their patches are what that gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from albireo.errors import UnsupportedModel, short
from albireo.graph.node import Graph, Value
from albireo.models.checkpoint.weights import check_weights
from albireo.models.hearing.stem import Stem
from albireo.models.settings.text_part import inner
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.tensors import TowerTensors, tower_file, tower_tensors
from albireo.models.vision.tower_inputs import TowerInputs

__all__ = [
    "F32",
    "TowerInputs",
    "VisionTower",
    "check_tensors",
    "has_tower",
    "hears",
    "listens",
    "open_ear",
    "open_tower",
    "sees",
    "tower_file",
    "tower_tensors",
]


class VisionTower(Protocol):
    """The tower of one model."""

    @property
    def dtype(self) -> str:
        """Compute type: float32, bfloat16 or float16."""
        ...

    @property
    def host_tensors(self) -> tuple[str, ...]:
        """Names of tensors that inputs() reads; hold() is to be given them once, before."""
        ...

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """Patterns of names of tensors that a checkpoint has and no row is made of."""
        ...

    @property
    def deep_layers(self) -> tuple[int, ...]:
        """Layers of the language model behind which rows are added (DeepStack), in order. Rows of a tile hold those,
        too, side by side behind what stands in place of embeddings."""
        ...

    @property
    def adds_rows(self) -> bool:
        """Whether rows are added to embeddings, in place of which they else stand."""
        ...

    @property
    def stem(self) -> Stem | None:
        """What is computed before; None: nothing is."""
        ...

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        """Tensors that graphs read and no checkpoint has."""
        ...

    def hold(self, tensors: Mapping[str, F32]) -> None:
        """Keep host_tensors. Raises: WeightMismatch for one of another shape than config.json implies."""
        ...

    def rows(self, height: int, width: int) -> int:
        """Rows that a tile of so many pixels gives the language model. Raises: InvariantError, as patches()."""
        ...

    def patches(self, height: int, width: int) -> int:
        """Patches of such a tile. Raises: InvariantError for a size that the tower does not read."""
        ...

    def sequences(self, height: int, width: int) -> Sequences:
        """Of each layer of the KV cache, how many patches each of its sequences has, in the order of given rows; those
        of one see each other. None: there is one layer, and all patches see each other. Raises: as patches()."""
        ...

    def most_sequences(self, patches: int) -> int:
        """Most of a layer, of tiles of up to so many patches."""
        ...

    def most_rows(self, patches: int) -> int:
        """Most that the projector is given of a tile of up to so many patches."""
        ...

    def projected(self, height: int, width: int) -> int:
        """How many of joined() the projector is given, of such a tile. Raises: as patches()."""
        ...

    def projector_sequences(self, count: int) -> Sequences:
        """Of so many rows that the projector is given; as sequences()."""
        ...

    def inputs(self, tile: F32) -> TowerInputs:
        """Of a tile [H, W, 3], normalized; or of what the stem gives of one, [T, K]. Raises: InvariantError, as
        patches()."""
        ...

    def graph(self) -> Graph:
        """Patches -> output hidden [R, E], in the order of given rows."""
        ...

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """[rows, K] what the projector reads, of hidden [T, E]."""
        ...

    def projector(self) -> Graph:
        """Given rows [rows, K] -> output hidden [R, hidden_size of the text part, and as many for each of deep_layers,
        where placed() does not put them together]."""
        ...

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        """All rows of a tile, of those that the projector gives: others may stand between them. Args: size: of the
        tile in pixels."""
        ...


_Open = Callable[[Mapping[str, Any], str, str], VisionTower]
#: By the model_type of the whole: the file that is imported where such a model is opened, and what opens it there.
_FAMILIES: Mapping[str, str] = {
    "granite4_vision": "vision.granite4_vision.open_granite4_vision",
    "granite_speech": "hearing.granite_speech.open_granite_speech",
    "granite_speech_plus": "hearing.granite_speech.open_granite_speech",
    "audioflamingo3": "hearing.audioflamingo3.open_audioflamingo3",
    "aya_vision": "vision.cohere2_vision.open_aya_vision",
    "canary": "hearing.canary.open_canary",
    "clip": "vision.paired.open_clip",
    "cohere2_vision": "vision.cohere2_vision.open_cohere2_vision",
    "cohere_asr": "hearing.cohere_asr.open_cohere_asr",
    "data2vec-audio": "hearing.wav2vec2.open_data2vec_audio",
    "deepseek_ocr": "vision.deepseek_ocr.open_deepseek_ocr",
    "deepseek_ocr2": "vision.deepseek_ocr2.open_deepseek_ocr2",
    "deepseek_vl": "vision.janus.open_deepseek_vl",
    "dots_ocr": "vision.dots_ocr.open_dots_ocr",
    "ernie4_5_vl_moe": "vision.ernie4_5_vl_moe.open_ernie4_5_vl_moe",
    "exaone4_5": "vision.qwen2_vl.open_exaone4_5",
    "fun_asr_nano": "hearing.fun_asr_nano.open_fun_asr_nano",
    "gemma3": "vision.gemma3.open_gemma3",
    "gemma3n": "hearing.gemma3n.open_gemma3n",
    "gemma4": "vision.gemma4.open_gemma4",
    "gemma4_unified": "vision.gemma4_unified.open_gemma4_unified",
    "glm46v": "vision.glm4v.open_glm4v",
    "glm4v": "vision.glm4v.open_glm4v",
    "glm4v_moe": "vision.glm4v.open_glm4v",
    "glm_ocr": "vision.glm4v.open_glm_ocr",
    "glmasr": "hearing.glmasr.open_glmasr",
    "got_ocr2": "vision.got_ocr2.open_got_ocr2",
    "hunyuan_vl": "vision.hunyuan_vl.open_hunyuan_vl",
    "hubert": "hearing.wav2vec2.open_wav2vec2",
    "hyperclovax_vision_v2": "vision.qwen2_vl.open_hyperclovax",
    "idefics2": "vision.idefics2.open_idefics2",
    "idefics3": "vision.idefics3.open_idefics3",
    "internvl": "vision.internvl.open_internvl",
    # as it was first published
    "internvl_chat": "vision.internvl.open_internvl",
    "janus": "vision.janus.open_janus",
    "Keye": "vision.paddleocr_vl.open_keye",
    "KeyeVL1_5": "vision.paddleocr_vl.open_keye",
    "kimi_k25": "vision.kimi_k25.open_kimi_k25",
    "kimi_vl": "vision.kimi_k25.open_kimi_vl",
    "lasr_ctc": "hearing.lasr.open_lasr",
    "llama4": "vision.llama4.open_llama4",
    "llava": "vision.llava.open_llava",
    "llava_next": "vision.llava_next.open_llava_next",
    "llava_onevision": "vision.llava_onevision.open_llava_onevision",
    "lfm2_vl": "vision.lfm2_vl.open_lfm2_vl",
    # as it was first published
    "lfm2-vl": "vision.lfm2_vl.open_lfm2_vl",
    # a Mistral 3 under other names
    "lighton_ocr": "vision.mistral3.open_mistral3",
    "minicpm_ocr": "vision.minicpmv4_6.open_minicpm_ocr",
    "minicpmo": "vision.minicpmv.open_minicpmv",
    "minicpmv": "vision.minicpmv.open_minicpmv",
    "minicpmv4_6": "vision.minicpmv4_6.open_minicpmv4_6",
    "minimax_m3_vl": "vision.minimax_m3_vl.open_minimax_m3_vl",
    "mistral_large4": "vision.mistral3.open_mistral3",
    "mistral3": "vision.mistral3.open_mistral3",
    "moonshine": "hearing.moonshine.open_moonshine",
    "musicflamingo": "hearing.musicflamingo.open_musicflamingo",
    "nemotron3_5_asr": "hearing.parakeet.open_streaming_transducer",
    "nemotron_asr_streaming": "hearing.parakeet.open_streaming_transducer",
    "nemotron_h_omni": "vision.radio.open_nemotron_h_omni",
    "opencua": "vision.qwen2_vl.open_opencua",
    "ovis2": "vision.ovis2.open_ovis2",
    "omniasr_ctc": "hearing.wav2vec2.open_omniasr",
    "parakeet_ctc": "hearing.parakeet.open_parakeet_ctc",
    "parakeet_rnnt": "hearing.parakeet.open_parakeet_transducer",
    "parakeet_tdt": "hearing.parakeet.open_parakeet_transducer",
    "paddleocr_vl": "vision.paddleocr_vl.open_paddleocr_vl",
    "paligemma": "vision.paligemma.open_paligemma",
    "phi3_v": "vision.phi3_v.open_phi3_v",
    "phi4_multimodal": "vision.phi4_multimodal.open_phi4_multimodal",
    # a GOT-OCR 2.0 under another name
    "pp_chart2table": "vision.got_ocr2.open_got_ocr2",
    # an InternVL of other defaults
    "qianfan_ocr": "vision.internvl.open_qianfan_ocr",
    "qwen2_5_omni": "vision.qwen2_vl.open_qwen2_5_vl",
    "qwen2_5_vl": "vision.qwen2_vl.open_qwen2_5_vl",
    "qwen2_audio": "hearing.qwen2_audio.open_qwen2_audio",
    "qwen2_vl": "vision.qwen2_vl.open_qwen2_vl",
    "qwen3_5": "vision.qwen3_vl.open_qwen3_vl",
    "qwen3_5_moe": "vision.qwen3_vl.open_qwen3_vl",
    "qwen3_asr": "hearing.qwen3_asr.open_qwen3_asr",
    "qwen3_omni_moe": "vision.qwen3_vl.open_qwen3_vl",
    "qwen3_vl": "vision.qwen3_vl.open_qwen3_vl",
    "qwen3_vl_moe": "vision.qwen3_vl.open_qwen3_vl",
    "siglip": "vision.paired.open_siglip",
    "smolvlm": "vision.idefics3.open_idefics3",
    "unispeech": "hearing.wav2vec2.open_wav2vec2",
    "unispeech-sat": "hearing.wav2vec2.open_wav2vec2",
    "video_llama_3": "vision.video_llama_3.open_video_llama_3",
    "vipllava": "vision.llava.open_vipllava",
    "voxtral": "hearing.voxtral.open_voxtral",
    "voxtral_realtime": "hearing.voxtral_realtime.open_voxtral_realtime",
    "wav2vec2": "hearing.wav2vec2.open_wav2vec2",
    "wav2vec2-bert": "hearing.wav2vec2_bert.open_wav2vec2_bert",
    "wavlm": "hearing.wavlm.open_wavlm",
    "whisper": "hearing.whisper.open_whisper",
}
#: Of those that see, what hears beside.
_EARS: Mapping[str, str] = {
    "gemma4": "hearing.gemma4.open_gemma4",
    "gemma4_unified": "hearing.gemma4.open_gemma4_unified",
    "phi4_multimodal": "hearing.phi4_multimodal.open_phi4_multimodal",
    "qwen2_5_omni": "hearing.qwen2_5_omni.open_qwen2_5_omni",
    "qwen3_omni_moe": "hearing.qwen3_asr.open_qwen3_omni",
}
#: Of those, models that hear alone: a tile is what a sound has of each frequency, as time goes by. Decoders of the
#: first listen to what their towers give; for others rows of sounds stand in a prompt, as those of pictures do.
_LISTENING = (
    *("canary", "cohere_asr", "data2vec-audio", "hubert", "lasr_ctc", "moonshine", "nemotron3_5_asr"),
    *("nemotron_asr_streaming", "omniasr_ctc", "parakeet_ctc", "parakeet_rnnt", "parakeet_tdt", "unispeech"),
    *("unispeech-sat", "wav2vec2", "wav2vec2-bert", "wavlm", "whisper"),
)
_HEARING = (
    *("audioflamingo3", "gemma3n", "glmasr", "granite_speech", "granite_speech_plus", "qwen2_audio", "qwen3_asr"),
    *("fun_asr_nano", "musicflamingo", "voxtral", "voxtral_realtime"),
)
#: Tensors that no rows are made of: of a head that pools patches, and numbers 0, 1, ... of old files.
IGNORABLE_TENSORS = ("vision_tower.head.*", "*.embeddings.position_ids")


def has_tower(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model whose tower is computed here."""
    data = inner(data)
    kind = data.get("model_type")
    if kind in _LISTENING or kind not in _FAMILIES:
        return kind in _LISTENING
    parts = ("audio_config", "encoder_config") if kind in _HEARING else ("vision_config",)
    return any(isinstance(data.get(part), Mapping) for part in parts)


def listens(data: Mapping[str, Any]) -> bool:
    """Whether it is that of a model whose decoder listens to a sound, see models/speech: it has no other prompts."""
    return data.get("model_type") in _LISTENING


def hears(data: Mapping[str, Any]) -> bool:
    """Whether it is that of a model whose prompts may have sounds."""
    data = inner(data)
    kind = data.get("model_type")
    # of one family some hear, and others do not
    return kind in _HEARING or (kind in _EARS and isinstance(data.get("audio_config"), Mapping))


def sees(data: Mapping[str, Any]) -> bool:
    """Whether it is that of a model whose prompts may have pictures."""
    kind = inner(data).get("model_type")
    return kind in _FAMILIES and kind not in (*_HEARING, *_LISTENING)


def open_tower(data: Mapping[str, Any], dtype: str, where: str) -> VisionTower:
    """The tower that a config.json describes; of a model that sees and hears the one that sees.

    Args: data: what it holds. dtype: to compute in, as of text models. where: names it in errors.
    Raises: ModelError for a bad value; UnsupportedModel naming key and value for what is not computed.
    """
    return _opened(_FAMILIES, data, dtype, where)


def open_ear(data: Mapping[str, Any], dtype: str, where: str) -> VisionTower:
    """The tower that hears of a model whose prompts may have sounds. Args, Raises: as open_tower()."""
    return _opened({**_FAMILIES, **_EARS}, data, dtype, where)


def _opened(families: Mapping[str, str], data: Mapping[str, Any], dtype: str, where: str) -> VisionTower:
    kind = data.get("model_type")
    if kind not in families:
        raise UnsupportedModel(
            f"{where}: model_type={short(kind)} has no vision tower here; supported: {', '.join(sorted(families))}"
        )
    file, _, name = families[str(kind)].rpartition(".")
    opens: _Open = getattr(import_module(f"albireo.models.{file}"), name)
    return opens(data, dtype, where)


def check_tensors(tower: VisionTower, tensors: TowerTensors) -> None:
    """Compare what a tower reads with what there is.

    Raises: WeightMismatch naming what is missing, misshapen or extra.
    """
    tensors.make(tower.made_tensors)
    before = () if tower.stem is None else tower.stem.graphs()
    graphs = *before, tower.graph(), tower.projector()
    read = {name for graph in graphs for constant in graph.constants.values() for name in _sources(constant)}
    for graph in graphs:
        check_weights(graph, tensors, ignorable=(*read, *tower.host_tensors, *tower.unread_tensors, *IGNORABLE_TENSORS))


def _sources(constant: Value) -> list[str]:
    assert constant.constant is not None
    return [segment.source for segment in constant.constant.segments if segment.source is not None]
