"""What the two processes say to each other: msgpack arrays, one frame a message; a step is one message.

A frame is the payload's length, four bytes little-endian, and the payload. Used by worker.py and client.py; does not
know sockets. Times are seconds of the system's monotonic clock, which both processes read.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from albireo.api.machine.share import ALONE, Share
from albireo.engine.settings import EngineSettings
from albireo.engine_process.model_files import Marks
from albireo.image_input import ImageInput
from albireo.models.settings.generation import GenerationDefaults
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.outputs import FinishReason
from albireo.params import PoolingParams, SamplingParams
from albireo.step import TokenLogprobs

#: No message is larger: prompts are bounded by the context, steps by the sequences in one.
MAX_FRAME_BYTES = 1 << 30
#: Of what is read of one request's pictures, sounds and videos; the rest is for tokens.
MAX_MEDIA_BYTES = MAX_FRAME_BYTES - (128 << 20)
_LENGTH = struct.Struct("<I")


class Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    """Base of all messages."""


# -- to the worker -----------------------------------------------------------------------------------------------------


class Start(Message):
    """Load a model. engine: fields of EngineConfig; share: of the machine."""

    engine: dict[str, Any]
    share: Share = ALONE


class Add(Message):
    """Run a request. earlier, pooling, adapter, images: see Engine.add_request()."""

    key: int
    prompt_token_ids: list[int]
    params: SamplingParams
    priority: int
    cache_salt: str | None
    arrival_s: float
    earlier: list[list[int] | None] | None
    pooling: PoolingParams | None = None
    adapter: int | None = None
    images: tuple[ImageInput, ...] = ()


class Abort(Message):
    """End a request; nothing more is said about it."""

    key: int


class Finish(Message):
    """A stop string ended one continuation; nothing more is said about it."""

    key: int
    index: int


class Careful(Message):
    """Compute sequences one by one from now on, and compile grammars by themselves, or all together again: whoever
    crashes the process is known then."""

    is_on: bool


class Watch(Message):
    """Send pictures of the KV blocks, at most one in so many seconds; None: no more."""

    interval_s: float | None


class LoadAdapter(Message):
    """Read an adapter, and let requests have it by its number. digest: what it was when it was read before."""

    number: int
    path: str
    digest: str | None = None


class DropAdapter(Message):
    """No new request will have this adapter; those that run go on with it."""

    number: int


class ForgetPrefixes(Message):
    """No prompt that comes later finds anything of what was computed before; with_files: neither in files."""

    with_files: bool


ToWorker = Start | Add | Abort | Finish | Careful | Watch | LoadAdapter | DropAdapter | ForgetPrefixes


# -- from the worker ---------------------------------------------------------------------------------------------------


class Loading(Message):
    """fraction of the weights that is ready."""

    fraction: float


class Ready(Message):
    """The model runs; what the client has to know of it.

    Fields:
        config_directory: where config.json is, and what says how images are prepared.
        files: the model's, as they lay there before any was read.
        memory: bytes of weights, arena and kv, as planned. device: where they are, cpu or cuda.
        The others: see EngineSettings, which has them, too.
    """

    engine: dict[str, Any]
    tokenizer_directory: str
    defaults: GenerationDefaults
    vocab_size: int
    max_model_len: int
    max_num_seqs: int
    num_blocks: int
    block_size: int
    memory: dict[str, int]
    load_s: float
    embedding_size: int = 0
    max_num_batched_tokens: int = 2048
    windows: tuple[int | None, ...] = (None,)
    pooling_rule: PoolingRule = PoolingRule()
    generates: bool = True
    num_token_types: int = 0
    is_causal: bool = True
    are_prompts_whole: bool = False
    image_problem: str = ""
    sound_problem: str = ""
    video_problem: str = ""
    are_images_whole: bool = False
    narrowest_window: int | None = None
    sound_positions: int = 0
    writes_frames: bool = False
    config_directory: str = ""
    device: str = "cpu"
    files: Marks = msgspec.field(default_factory=dict)

    def settings(self) -> EngineSettings:
        """What the engine decides with, as far as requests are refused by it."""
        told = {name: getattr(self, name) for name in OF_SETTINGS}
        return EngineSettings(scheduling_policy=self.engine["scheduling_policy"], **told)


#: What it says of EngineSettings, by the same names.
OF_SETTINGS = tuple(name for name in Ready.__struct_fields__ if name in EngineSettings.__dataclass_fields__)


class Refused(Message):
    """A request never ran. error: name of its class in errors.py."""

    key: int
    error: str
    message: str


class Progress(Message):
    """What a request's first and last update know beyond tokens; see RequestProgress.

    Fields: compiled_s: when its grammar was there; None without one.
    """

    first_scheduled_s: float | None
    first_token_s: float | None
    num_cached_tokens: int
    num_preemptions: int
    num_prefill_chunks: int
    preempted_s: float
    compiled_s: float | None
    prompt_logprobs: list[TokenLogprobs] | None


class Update(Message):
    """News of one continuation; see SequenceUpdate. embedding: its values, float32, little-endian."""

    key: int
    index: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    progress: Progress | None = None
    embedding: bytes | None = None


class Stepped(Message):
    """One step: what it brought, and how the engine stands after it.

    Fields:
        num_prompt, num_output: tokens computed of prompts (or again), and for a next token each.
        num_preemptions, cache_queries, cache_hits: since the process started; see EngineStats.
        num_swapped, host_kv_usage: num_requests_swapped and cpu_cache_usage there.
        num_drafts, num_draft_tokens, num_accepted_tokens, accepted_per_pos: since the process started, as there.
        running_adapters, waiting_adapters: numbers of the adapters that some running sequence has, and of the others
            that some request has.
    """

    updates: list[Update]
    started_s: float
    ended_s: float
    num_prompt: int
    num_output: int
    num_running: int
    num_waiting: int
    kv_usage: float
    num_preemptions: int
    cache_queries: int
    cache_hits: int
    num_swapped: int = 0
    host_kv_usage: float = 0.0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_per_pos: list[int] = []
    running_adapters: list[int] = []
    waiting_adapters: list[int] = []


class SequenceBlocks(Message):
    """One sequence that holds blocks.

    Fields: blocks: ids, in order, 0 where a window has left one; others: those of the block groups behind the first.
    num_computed of num_tokens tokens are in them; the first num_cached were found there when it first ran.
    """

    key: int
    index: int
    num_prompt: int
    num_tokens: int
    num_computed: int
    num_cached: int
    blocks: list[int]
    others: list[list[int]] = []


class AdapterLoaded(Message):
    """An adapter was read, or could not be. error: name of its class in errors.py; None: it was.

    Fields: rank, num_bytes, digest: see PeftAdapter.
    """

    number: int
    error: str | None = None
    message: str = ""
    rank: int = 0
    num_bytes: int = 0
    digest: str = ""


class PrefixesForgotten(Message):
    """What ForgetPrefixes asked for is done."""


class Blocks(Message):
    """The KV cache at one moment. cached: blocks that nobody holds and that a prefix may find. states: slots of states
    that sequences hold, slots with snapshots, all; None where layers keep no states."""

    at_s: float
    sequences: list[SequenceBlocks]
    cached: list[int]
    states: tuple[int, int, int] | None = None


class Failed(Message):
    """The worker cannot go on, and another try would not help. error: name of its class in errors.py."""

    error: str
    message: str


FromWorker = Loading | Ready | Refused | Stepped | AdapterLoaded | PrefixesForgotten | Blocks | Failed


_encoder = msgspec.msgpack.Encoder()


def payload_of(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def framed(payload: bytes) -> bytes:
    """A message's bytes as they are on the wire."""
    return _LENGTH.pack(len(payload)) + payload


def frame(message: Message) -> bytes:
    """A message as it is on the wire."""
    return framed(payload_of(message))


class Frames:
    """Bytes as they come, cut into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes. Returns: the payloads that they complete. Raises: ValueError for a frame that is too long."""
        self._buffer += data
        found = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return found
