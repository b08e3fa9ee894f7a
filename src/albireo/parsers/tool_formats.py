"""The formats of tool calls by name, and which of them a chat template writes.

Used by output_parser.py and tool_form.py. Does not know requests.
"""

from __future__ import annotations

from albireo.parsers.formats.bracketed_calls import (
    FunctionGemmaParser,
    Gemma4Parser,
    Lfm2Parser,
    Olmo3Parser,
    PythonicParser,
)
from albireo.parsers.formats.harmony import HarmonyParser
from albireo.parsers.formats.headed_json import (
    ApertusParser,
    DeepSeekV3Parser,
    DeepSeekV31Parser,
    FunctionaryParser,
    KimiK2Parser,
    SolarOpenParser,
)
from albireo.parsers.formats.hermes import HermesParser
from albireo.parsers.formats.json_list import (
    CohereCommandParser,
    GigaChat3Parser,
    GraniteParser,
    InternLmParser,
    JambaParser,
    LongCatParser,
    NemotronParser,
    Phi4MiniParser,
)
from albireo.parsers.formats.keyed_values import (
    DeepSeekV4Parser,
    DeepSeekV32Parser,
    Glm45Parser,
    HunyuanV3Parser,
    MiniCpm5Parser,
    MiniMaxM2Parser,
    Qwen3CoderParser,
    SeedOssParser,
    Step3Parser,
)
from albireo.parsers.formats.kimi_k3 import KimiK3Parser
from albireo.parsers.formats.llama3_json import Llama3JsonParser
from albireo.parsers.formats.minimax_m3 import MiniMaxM3Parser
from albireo.parsers.formats.mistral import MistralParser
from albireo.parsers.formats.muse import MuseParser
from albireo.parsers.tool_parser import ToolParser

#: By the names of vLLM's parsers, where it has one.
TOOL_CALL_PARSERS: dict[str, type[ToolParser] | type[HarmonyParser] | type[MuseParser]] = {
    "hermes": HermesParser,
    "qwen3_json": HermesParser,
    "granite4": HermesParser,
    "ernie45": HermesParser,
    "llama3_json": Llama3JsonParser,
    "llama4_json": Llama3JsonParser,
    "mistral": MistralParser,
    "openai": HarmonyParser,
    "muse_glimmer": MuseParser,
    "qwen3_coder": Qwen3CoderParser,
    "qwen3_xml": Qwen3CoderParser,
    "step3p5": Qwen3CoderParser,
    "seed_oss": SeedOssParser,
    "glm45": Glm45Parser,
    "glm47": Glm45Parser,
    "ling3": Glm45Parser,
    "poolside_v1": Glm45Parser,
    "minimax_m2": MiniMaxM2Parser,
    "minimax_m3": MiniMaxM3Parser,
    "minicpm5": MiniCpm5Parser,
    "deepseek_v3": DeepSeekV3Parser,
    "deepseek_v31": DeepSeekV31Parser,
    "deepseek_v32": DeepSeekV32Parser,
    "deepseek_v4": DeepSeekV4Parser,
    "hy_v3": HunyuanV3Parser,
    "kimi_k2": KimiK2Parser,
    "kimi_k3": KimiK3Parser,
    "step3": Step3Parser,
    "functionary_v3_1": FunctionaryParser,
    "solar_open": SolarOpenParser,
    "apertus": ApertusParser,
    "granite": GraniteParser,
    "phi4_mini_json": Phi4MiniParser,
    "jamba": JambaParser,
    "hunyuan_a13b": JambaParser,
    "nemotron_json": NemotronParser,
    "cohere_command3": CohereCommandParser,
    "internlm": InternLmParser,
    "gigachat3": GigaChat3Parser,
    "longcat": LongCatParser,
    "pythonic": PythonicParser,
    "llama4_pythonic": PythonicParser,
    "lfm2": Lfm2Parser,
    "olmo3": Olmo3Parser,
    "gemma4": Gemma4Parser,
    "functiongemma": FunctionGemmaParser,
}


def detect_tool_call_parser(template: str) -> str | None:
    """The name of the format in which a chat template writes tool calls; None when it is none of ours."""
    return next((name for marks, name in _MARKS if all(mark in template for mark in marks)), None)


#: What a chat template holds, and the format that it then has; the first that fits.
_MARKS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("]<]minimax[>[",), "minimax_m3"),
    (("</function>", "<|start_header_id|>"), "functionary_v3_1"),
    (("<|open|>", "<|close|>", "<|sep|>"), "kimi_k3"),
    (("<｜tool_calls_begin｜>", "steptml"), "step3"),
    (("<atem:function_calls>",), "muse_glimmer"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<|channel|>",), "openai"),
    (("｜DSML｜", "function_calls"), "deepseek_v32"),
    (("｜DSML｜", "tool_calls"), "deepseek_v4"),
    (("<｜tool▁calls▁begin｜>", "```json"), "deepseek_v3"),
    (("<｜tool▁calls▁begin｜>",), "deepseek_v31"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<minimax:tool_call>",), "minimax_m2"),
    (('<function name="', '<param name="'), "minicpm5"),
    (("<seed:tool_call>",), "seed_oss"),
    (("<tool_sep", ":opensource"), "hy_v3"),
    (("<|tool_call:begin|>",), "solar_open"),
    (("<|tools_prefix|>",), "apertus"),
    (("<|START_ACTION|>",), "cohere_command3"),
    (("<|tool_call_start|>",), "lfm2"),
    # Some of its models' templates tell calls nothing, and the model writes them all the same.
    (("List of tools: ",), "lfm2"),
    (("<|tool_call>call:",), "gemma4"),
    (("<start_function_call>",), "functiongemma"),
    (("<TOOLCALL>",), "nemotron_json"),
    (("<longcat_tool_call>",), "longcat"),
    (("<|function_call|>",), "gigachat3"),
    (("function call", "<|role_sep|>"), "gigachat3"),
    (("<|action_start|>", "<|plugin|>"), "internlm"),
    (("<|tool_call|>", "<|/tool_call|>"), "phi4_mini_json"),
    (("<|tool_call|>",), "granite"),
    (("<tool_calls>[",), "jamba"),
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>", "<arg_key>"), "glm45"),
    (("<tool_call>",), "hermes"),
    (("<tool_calls>",), "jamba"),
    (("<function_calls>",), "olmo3"),
    (("<|python_start|>", "[func"), "pythonic"),
    (("<|start_header_id|>", '"parameters"'), "llama3_json"),
    (("<|header_start|>", '"parameters"'), "llama3_json"),
    (("<|python_tag|>",), "llama3_json"),
)
