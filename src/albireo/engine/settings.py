"""The numbers the engine decides with, already resolved: no None, no "auto".

Built by api from EngineConfig, the model and the KV pool. Does not know bytes, dtypes or paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from albireo.config import BLOCK_SIZES, EngineConfig
from albireo.engine.block_tables import Windows, capacity_tokens
from albireo.errors import ConfigError
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.speculative_config import MAX_DRAFTS, SpeculativeConfig

if TYPE_CHECKING:
    from albireo.models.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of one engine.

    Fields:
        num_blocks: of the KV cache, the null block included.
        windows: of each block group: positions that a token sees; None: all. groups_in_chunks: those
            that see chunks, as long as their window. See block_tables.py.
        max_model_len: longest sequence in tokens, prompt and output together.
        vocab_size: token ids are below it.
        target_step_s: seconds that a step with tokens of prompts is to take beside sequences that decode; 0: any.
        eos_token_ids: ids that end a sequence unless ignore_eos.
        seed: where requests without a seed of their own derive theirs from.
        max_prompt_rows: most prompt positions of one step whose log-probabilities are wanted; each needs a row of
            logits, and rows of logits are large.
        embedding_size: values of an embedding; 0 where none can be computed.
        pooling_rule: what the model's files say of embeddings, or of scores. generates: it writes text.
        num_token_types: how many types of tokens it tells apart; 0: none.
        is_causal: tokens do not see what comes behind them; else all tokens of a prompt are in one step.
        are_prompts_whole: tokens of a prompt see each other, and those that are written see what is before them.
        are_images_whole: rows of an image see those behind them, so that all of it is in one step.
        narrowest_window: positions that tokens see in the layers that see fewest; None: all layers see all.
        max_step_tiles: parts of images that a step begins with: what runs beside them waits for the tower.
        sound_positions: so many first tokens of every prompt are those of a sound; 0: there are none. writes_frames:
            what is written is what frames of the sound say, so that nothing is drawn, or told beforehand.
        image_problem: why prompts have no images, as the end of a sentence; empty: they may have some. sound_problem,
            video_problem: why they have no sounds, and no videos.
        lookahead: positions beyond a decoding step's own that a sequence gets blocks for where there are free ones, for
            a device that begins the next step before this one is reported.
        num_host_blocks: blocks of host memory for what preempted sequences have computed.
        swap_cost_tokens: tokens that the device computes in the time it moves one block to host memory and back.
        num_adapter_slots: adapters that can run at once; 0: none can.
        num_state_slots: for what recurrent layers carry from token to token, of each sequence that runs and of prefixes
            that others may go on from; 0: there are no such layers.
        speculative: how drafts are made; None: there are none. max_draft_rows: rows that a step has for them beyond
            those of max_num_seqs.

    Raises: ConfigError when the cache is too small to hold one token.
    """

    num_blocks: int
    max_model_len: int
    vocab_size: int
    windows: Windows = (None,)
    groups_in_chunks: tuple[int, ...] = ()
    block_size: int = 16
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    target_step_s: float = 0.0
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    eos_token_ids: frozenset[int] = frozenset()
    seed: int = 0
    max_prompt_rows: int = 64
    embedding_size: int = 0
    pooling_rule: PoolingRule = PoolingRule()  # noqa: RUF009  # it is frozen
    generates: bool = True
    num_token_types: int = 0
    is_causal: bool = True
    image_problem: str = "this model reads text only"
    sound_problem: str = "this model reads text only"
    video_problem: str = "this model reads text only"
    are_prompts_whole: bool = False
    are_images_whole: bool = False
    narrowest_window: int | None = None
    sound_positions: int = 0
    writes_frames: bool = False
    max_step_tiles: int = 1
    lookahead: int = 0
    num_host_blocks: int = 0
    swap_cost_tokens: float = 0.0
    num_adapter_slots: int = 0
    num_state_slots: int = 0
    speculative: SpeculativeConfig | None = None
    max_draft_rows: int = MAX_DRAFTS

    @property
    def can_cut_anywhere(self) -> bool:
        """Whether a prompt may be computed in parts of any length: no tokens of it see those behind them."""
        return self.is_causal and not self.are_prompts_whole and not self.are_images_whole

    def __post_init__(self) -> None:
        if self.block_size not in BLOCK_SIZES:
            raise ConfigError(f"block_size={self.block_size} is not supported; choose one of {BLOCK_SIZES}")
        if self.num_blocks < 1 + len(self.windows):
            raise ConfigError(
                f"num_blocks={self.num_blocks} leaves no room: the null block is needed, and one more for each of "
                f"{len(self.windows)} groups of layers; raise kv_cache_memory_bytes"
            )
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "vocab_size", "max_prompt_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be at least 1")

        if not self.is_causal and self.max_num_batched_tokens < self.max_model_len:
            raise ConfigError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} is less than max_model_len="
                f"{self.max_model_len}: tokens of this model see all others, so a prompt has to be in one step; raise "
                "it, or lower max_model_len"
            )
        if self.num_state_slots:
            if self.num_state_slots < self.max_num_seqs:
                raise ConfigError(f"num_state_slots={self.num_state_slots}, max_num_seqs={self.max_num_seqs} can run")
            if self.num_host_blocks:
                raise ConfigError("num_host_blocks: states of sequences are not swapped")
            if self.speculative is not None and self.lookahead:
                raise ConfigError("speculative: states that steps ahead have changed cannot be taken back")

    @classmethod
    def from_config(
        cls,
        config: EngineConfig,
        *,
        num_blocks: int,
        max_model_len: int,
        vocab_size: int,
        eos_token_ids: frozenset[int],
        max_prompt_rows: int = 64,
        embedding_size: int = 0,
        model: ModelConfig | None = None,
        pooling_rule: PoolingRule | None = None,
        image_problem: str = "this model reads text only",
        sound_problem: str = "this model reads text only",
        video_problem: str = "this model reads text only",
        are_images_whole: bool = False,
        max_step_tiles: int = 1,
        lookahead: int = 0,
        num_host_blocks: int = 0,
        swap_cost_tokens: float = 0.0,
        num_state_slots: int = 0,
        windows: Windows = (None,),
        groups_in_chunks: tuple[int, ...] = (),
    ) -> EngineSettings:
        """Join what the user asked for with what the model and the memory allow.

        Args: model: None: one that writes text, whose files say nothing of embeddings.
        """
        is_causal = model is None or not model.blocks.sees_both_ways
        return cls(
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            vocab_size=vocab_size,
            eos_token_ids=eos_token_ids,
            block_size=config.block_size,
            max_num_seqs=config.step_limits.max_num_seqs,
            max_num_batched_tokens=config.step_limits.max_num_batched_tokens,
            target_step_s=config.step_limits.target_itl_ms / 1000,
            enable_prefix_caching=config.enable_prefix_caching and is_causal,
            scheduling_policy=config.scheduling_policy,
            seed=config.seed,
            max_prompt_rows=max_prompt_rows,
            embedding_size=embedding_size,
            pooling_rule=pooling_rule or PoolingRule(),
            generates=model is None or model.pooling is None,
            num_token_types=0 if model is None else model.blocks.num_token_types,
            is_causal=is_causal,
            are_prompts_whole=model is not None and model.blocks.sees_prompts,
            sound_positions=0 if model is None else model.blocks.sound_positions,
            writes_frames=model is not None and model.marks is not None,
            image_problem=image_problem,
            sound_problem=sound_problem,
            video_problem=video_problem,
            are_images_whole=are_images_whole,
            narrowest_window=None if model is None else min(filter(None, model.windows), default=None),
            max_step_tiles=max_step_tiles,
            lookahead=lookahead,
            num_host_blocks=num_host_blocks,
            swap_cost_tokens=swap_cost_tokens,
            num_adapter_slots=config.max_loras if config.enable_lora else 0,
            num_state_slots=num_state_slots,
            windows=windows,
            groups_in_chunks=groups_in_chunks,
            speculative=config.speculative_config,
        )

    @property
    def capacity_tokens(self) -> int:
        """Tokens the cache holds for one sequence that has it alone."""
        return capacity_tokens(self.num_blocks - 1, self.block_size, self.windows, self.max_num_batched_tokens)
