"""ModelConfig: what a checkpoint is, and ConfigRules: how an architecture reads its config.json. Frozen; read once.

Made by config_keys.py. Does not know how to run (albireo.config) nor where weights lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from albireo.dtypes import compute_dtype
from albireo.frame_marks import FrameMarks
from albireo.json_file import Fields
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.draft_input import DraftInput
from albireo.models.settings.expert_settings import ExpertSettings, Keys
from albireo.models.settings.fading_settings import FadingSettings
from albireo.models.settings.layer_kinds import DEFAULT_WINDOW, OwnWindows, WindowRule
from albireo.models.settings.mamba1_settings import Mamba1Settings
from albireo.models.settings.mamba_settings import MambaSettings
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule
from albireo.models.settings.recurrent_settings import RecurrentRule, RecurrentSettings
from albireo.models.settings.rope_settings import DEFAULT_THETA, RopeSettings


@dataclass(frozen=True, slots=True)
class ConfigRules:
    """What one architecture makes of the keys that do not mean the same everywhere.

    Fields:
        keys: optional keys it honours: attention_bias, mlp_bias, those of multipliers; any other must be neutral.
        windows, period: who has a sliding window, see layer_kinds.
        default_window: what an absent sliding_window means (null means none).
        head_dim: when the file does not say; None: hidden_size / num_attention_heads.
        experts: whose keys speak of experts.
        built_in: keys that some files have at the one value that the architecture has anyway.
        defaults: what absent keys mean, where the architecture's class in transformers differs from most.
        activation: see parse_activation(). multipliers: where no key says another; own_multipliers: reads them where
            its keys are other ones.
        has_local_rope: layers with a window rotate by frequencies of their own, of the base local_theta where none is
            said (None: that of the others).
        has_layers_without_rope: see ModelConfig.rotates. rotates_windows: where there is a window, layers without one
            do not rotate. has_pairs_side_by_side: see ModelConfig.
        ignorable: keys of this architecture that change nothing here.
        tables: keys whose values are tables of keys, which are read as if they lay beside them.
        names: what its files call keys that others have, too. older_names: what older files call keys that newer ones
            have; where both are there and differ, the file is refused. deciding: older names that decide then, as in
            transformers' class, or because published files mean them.
        rewritten: what its files say, in the words that are read here, of what they say and their name; None: they
            have these words.
        blocks: a layer's parts, or what reads what its own keys say of them.
        ffn_factor: widths of the residual stream that an FFN has where nothing is said; 0: it must be said.
        recurrent: whether some layers keep a state in place of attention; mamba: reads what its keys say of those of
            Mamba 2, or of Mamba 1, or of lightning attention.
        has_rope: whether positions are rotations; else a table of them is added.
        class_names: what architectures may name; empty: model_type and ForCausalLM, and what has the same layers and no
            head, or a classifier.
        pooled: reads what a class gives that writes no text; None: those classes, of the last token.
        frequencies: a tensor of the checkpoint whose exponentials multiply those of the rotation; empty: there is none.
        token_head: of such a model, what its class has behind each token's hidden state that classifies tokens.
        has_vocabulary: whether its embeddings may be weights of the vocabulary, see blocks/vocabulary_head.py.
    """

    keys: frozenset[str] = frozenset()
    windows: WindowRule | OwnWindows = "none"
    default_window: int | None = DEFAULT_WINDOW
    period: int = 0
    head_dim: int | None = None
    experts: Keys = "none"
    built_in: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "silu"
    multipliers: Multipliers = field(default_factory=Multipliers)
    own_multipliers: Callable[[Fields, frozenset[str], Multipliers], Multipliers] | None = None
    has_local_rope: bool = False
    local_theta: float | None = DEFAULT_THETA
    has_layers_without_rope: bool = False
    rotates_windows: bool = False
    has_pairs_side_by_side: bool = False
    ignorable: frozenset[str] = frozenset()
    class_names: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    older_names: Mapping[str, str] = field(default_factory=dict)
    deciding: frozenset[str] = frozenset()
    rewritten: Callable[[Mapping[str, Any], str], Mapping[str, Any]] | None = None
    blocks: BlockSettings | Callable[[Fields], BlockSettings] = field(default_factory=BlockSettings)
    ffn_factor: int = 0
    has_rope: bool = True
    recurrent: RecurrentRule = "none"
    mamba: Callable[[Fields], MambaSettings | Mamba1Settings | FadingSettings | None] | None = None
    frequencies: str = ""
    pooled: Callable[[Fields, str], PoolingRule] | None = None
    token_head: Callable[[Fields], tuple[HeadStep, ...]] = lambda _: (HeadStep("classifier"),)
    has_vocabulary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a checkpoint is.

    Fields:
        model_type: name of the architecture file.
        dtype: compute type; the checkpoint's as read, see with_dtype(). stored_dtype: the checkpoint's, no part of what
            is computed.
        rope, local_rope: rotation of all layers, or of those without a window and of those with one.
        windows: one entry a layer: positions seen, the token's own included; None: all.
        rotates: one entry a layer: whether queries and keys are rotated at all.
        has_pairs_side_by_side: the two channels of each rotary pair are neighbours in the checkpoint's q and k.
        attention_bias, attention_out_bias, mlp_bias: the keys, for architectures that honour them; others have their
            own rule.
        eos_token_ids: may be empty; generation_config.json may name more.
        experts: None: every layer has an ordinary MLP. recurrent: None: every layer has attention.
        rms_norm_eps: of LayerNorms, too.
        pooling: what it gives, where it writes no text.
        draft: what it reads beside tokens, where it guesses what another model says.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    dtype: str
    rope: RopeSettings
    windows: tuple[int | None, ...]
    hidden_act: str = "silu"
    attention_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    multipliers: Multipliers = field(default_factory=Multipliers)
    local_rope: RopeSettings | None = None
    rotates: tuple[bool, ...] = ()
    has_pairs_side_by_side: bool = False
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = field(default=())
    experts: ExpertSettings | None = None
    blocks: BlockSettings = field(default_factory=BlockSettings)
    recurrent: RecurrentSettings | MambaSettings | Mamba1Settings | FadingSettings | None = None
    pooling: PoolingRule | None = None
    draft: DraftInput | None = None
    stored_dtype: str = field(default="float32", compare=False)

    def with_dtype(self, dtype: str) -> ModelConfig:
        """The same model computed in dtype ("auto": as it is). Raises: ConfigError for an unknown one."""
        return self if dtype == "auto" else replace(self, dtype=compute_dtype(dtype))

    @property
    def marks(self) -> FrameMarks | None:
        """Of a model that writes what frames say; None: it writes tokens alone."""
        return FrameMarks(self.vocab_size, self.blocks.marked_frames) if self.blocks.marked_frames else None

    @property
    def num_ids(self) -> int:
        """All ids of outputs are below it."""
        return self.vocab_size if self.marks is None else self.marks.num_ids

    @property
    def pooled_width(self) -> int:
        """Of what is pooled: of hidden states, or of the vocabulary."""
        return self.vocab_size if self.pooling is not None and self.pooling.vocabulary else self.hidden_size

    @property
    def num_logits(self) -> int:
        """Of a row: of tokens, and of how many frames pass."""
        return self.vocab_size + len(self.blocks.durations)

    @property
    def scale(self) -> float:
        """Factor on attention scores."""
        given, latent = self.multipliers.attention, self.blocks.latent
        if latent is not None:
            growth = self.rope.score_growth if latent.scales_with_context else 1.0
            return float((latent.plain + latent.rotary) ** -0.5 * growth**2)
        return float((self.head_dim**-0.5 if given is None else given) * self.multipliers.scores)

    @property
    def cached_layers(self) -> tuple[int, ...]:
        """Layers that have a KV cache of their own, in order: those with attention that share no other's."""
        if self.blocks.marked_frames:
            return ()  # the decoder is a head
        if self.blocks.shared is not None:
            return self.blocks.shared.layers
        if self.blocks.cache_sources:
            return tuple(i for i, source in enumerate(self.blocks.cache_sources) if source == i)
        if self.blocks.parts:
            return tuple(i for i, part in enumerate(self.blocks.parts) if part.kv_heads)
        if self.blocks.mixers:
            return tuple(i for i, mixer in enumerate(self.blocks.mixers) if mixer == "attention")
        is_recurrent = self.recurrent.layers if self.recurrent and not self.blocks.attends_everywhere else ()
        layers = range(self.num_layers - self.blocks.num_sharing)
        return tuple(i for i in layers if not is_recurrent or not is_recurrent[i])

    def cache_of(self, layer: int) -> int:
        """Place, among layers that have a KV cache, of the one that a layer with attention reads."""
        caches = self.cached_layers
        if layer in caches:
            return caches.index(layer)
        if self.blocks.cache_sources:
            return caches.index(self.blocks.cache_sources[layer])
        is_local = self.windows[layer] is not None
        return max(place for place, each in enumerate(caches) if (self.windows[each] is not None) == is_local)

    def shares(self, layer: int) -> bool:
        """Whether a layer reads keys and values that another one wrote."""
        is_told = bool(self.blocks.cache_sources) and self.blocks.cache_sources[layer] != layer
        return is_told or layer >= self.num_layers - self.blocks.num_sharing

    def ffn_width(self, layer: int) -> int:
        if self.blocks.parts:
            return self.blocks.parts[layer].ffn_width
        is_wide = self.blocks.is_wide_where_sharing and self.shares(layer)
        return self.intermediate_size * (2 if is_wide else 1)

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated: the first ones."""
        return int(self.head_dim * self.rope.partial_rotary_factor)

    @property
    def without_windows(self) -> ModelConfig:
        """The same with the heads of layers without a window, where those have heads of their own."""
        heads, dim = self.blocks.full_num_kv_heads, self.blocks.full_head_dim
        return replace(self, num_kv_heads=heads or self.num_kv_heads, head_dim=dim or self.head_dim)

    def of_layer(self, layer: int) -> ModelConfig:
        """The same with the heads of a layer's attention, where those with a window have others than those without; or
        with its latents, where layers that do not rotate have others. Of one that has attention."""
        if self.blocks.parts:
            return replace(self, num_kv_heads=self.blocks.parts[layer].kv_heads)
        still = self.blocks.still_latent
        if still is not None and not self.rotates[layer]:
            return replace(self, head_dim=still.rank + still.rotary, blocks=replace(self.blocks, latent=still))
        if self.windows[layer] is None:
            return self.without_windows
        latent = self.blocks.local_latent
        if latent is None:
            return self
        heads, blocks = self.blocks.local_heads, replace(self.blocks, latent=latent)
        return replace(self, num_heads=heads, head_dim=latent.rank + latent.rotary, blocks=blocks)

    @property
    def pooled_layers(self) -> tuple[int, ...]:
        """Layers that have a KV cache of entries of several positions, too; those of all such are behind the others."""
        pooled = self.blocks.pooled
        return () if pooled is None else tuple(i for i, every in enumerate(pooled.every) if every)

    @property
    def choosing_layers(self) -> tuple[int, ...]:
        """Of those, layers that choose among entries, by keys in KV caches that are last."""
        pooled, longest = self.blocks.pooled, self.max_position_embeddings
        return tuple(i for i in self.pooled_layers if pooled is not None and pooled.chooses(i, longest))

    @property
    def kv_every(self) -> tuple[int, ...]:
        """Of each KV cache, how many positions have one entry; empty: one of each."""
        pooled, index = self.blocks.pooled, self.blocks.index
        if index is not None and index.every > 1 and self.is_choosing:
            return (*(1,) * len(self.cached_layers), *(index.every,) * sum(index.own))
        if pooled is None:
            return ()
        several = (*self.pooled_layers, *self.choosing_layers)
        return (*(1,) * self.num_layers, *(pooled.every[layer] for layer in several))

    @property
    def state_bytes(self) -> int:
        """What a sequence keeps beside KV caches, over all layers."""
        pooled, index = self.blocks.pooled, self.blocks.index
        if pooled is None:
            of_keys = 0 if index is None or index.every == 1 else 12 * index.head_dim * sum(index.own)
            of_layers = 0 if self.recurrent is None else self.recurrent.state_bytes
            return of_layers + (of_keys if self.is_choosing else 0)
        numbers = sum((9 if pooled.overlaps[layer] else 3) * self.head_dim for layer in self.pooled_layers)
        return 4 * (numbers + 9 * pooled.index_dim * len(self.choosing_layers))

    @property
    def takes_whole_prompts(self) -> bool:
        """Whether tokens of a prompt see each other, so that a step has all of it."""
        return self.blocks.sees_both_ways or self.blocks.sees_prompts

    @property
    def keeps_values(self) -> bool:
        """Whether KV caches have values beside keys; else values are channels of keys."""
        return self.blocks.latent is None and self.blocks.pooled is None

    @property
    def is_choosing(self) -> bool:
        """Whether layers choose what they see."""
        index = self.blocks.index
        if index is not None:
            return index.count < self.max_position_embeddings and any(index.own)
        return bool(self.choosing_layers)

    @property
    def kv_shapes(self) -> tuple[tuple[int, int], ...]:
        """KV heads and head_dim of each KV cache: of layers that have one, then of what chooses positions, where there
        are longer sequences than it lets see."""
        kinds = (self.of_layer(layer) for layer in self.cached_layers)
        index, pooled = self.blocks.index, self.blocks.pooled
        if pooled is not None:
            of_index = (1, pooled.index_dim)
            layers = [(1, self.head_dim)] * (self.num_layers + len(self.pooled_layers))
            return (*layers, *(of_index,) * len(self.choosing_layers))
        is_choosing = index is not None and index.count < self.max_position_embeddings
        chosen_by = () if index is None or not is_choosing else ((1, index.head_dim),) * sum(index.own)
        return (*((kind.num_kv_heads, kind.head_dim) for kind in kinds), *chosen_by)
