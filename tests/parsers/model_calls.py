"""Two calls as each model's chat template writes them, and what of a template tells which format it has."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

CITY = 'Bad "Zoë"\nline 2 <x> 😀'
ARGUMENTS: dict[str, Any] = {"city": CITY, "n": [1, -2.5, {"x": None}], "days": 3}
JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
LIST = '[1, -2.5, {"x": null}]'
SCHEMAS: dict[str, dict[str, Any]] = {
    "get.time": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "n": {"type": "array"}, "days": {"type": "integer"}},
        "required": ["city", "n", "days"],
    },
    "f": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": each}} for name, each in SCHEMAS.items()]


#: What each mark of MiniMax M3 begins with.
M3 = "]<]minimax[>["


class Written(NamedTuple):
    """name: of the parser. text: calls of get.time with ARGUMENTS, and of f; the first alone where num_calls is 1.
    template: marks of a chat template that has the format."""

    name: str
    text: str
    template: str
    num_calls: int = 2


def _dsml(section: str) -> str:
    return (
        f'<｜DSML｜{section}>\n<｜DSML｜invoke name="get.time">\n'
        f'<｜DSML｜parameter name="city" string="true">{CITY}</｜DSML｜parameter>\n'
        f'<｜DSML｜parameter name="n" string="false">{LIST}</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
        f'</｜DSML｜invoke>\n<｜DSML｜invoke name="f">\n</｜DSML｜invoke>\n</｜DSML｜{section}>'
    )


def _glm(line: str, mark: str = "") -> str:
    key, value, end = (f"{each}{mark}>" for each in ("<arg_key", "<arg_value", "</arg_value"))
    pairs = (("city", CITY), ("n", LIST), ("days", "3"))
    return "".join(f"{key}{name}</arg_key{mark}>{line}{value}{text}{end}{line}" for name, text in pairs)


_LIST = f'[{{"name": "get.time", "arguments": {JSON}}}, {{"name": "f", "arguments": {{}}}}]'
_PYTHON = f'get.time(city={json.dumps(CITY, ensure_ascii=False)}, n=[1, -2.5, {{"x": null}}], days=3)'
_GEMMA = f'{{city:<|"|>{CITY}<|"|>,n:[1,-2.5,{{x:null}}],days:3}}'

FORMATS = [
    Written(
        "qwen3_coder",
        f"<tool_call>\n<function=get.time>\n<parameter=city>\n{CITY}\n</parameter>\n<parameter=n>\n{LIST}\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n</function>\n</tool_call>",
        "<tool_call>\n<function=",
    ),
    Written(
        "seed_oss",
        f"<seed:tool_call>\n<function=get.time>\n<parameter=city>{CITY}</parameter>\n<parameter=n>{LIST}</parameter>\n"
        "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>\n"
        "<seed:tool_call>\n<function=f>\n</function>\n</seed:tool_call>",
        "<seed:tool_call>\n<function=",
    ),
    Written(
        "glm45",
        f"<tool_call>get.time\n{_glm(chr(10))}</tool_call>\n<tool_call>f\n</tool_call>",
        "<tool_call>{name}\n<arg_key>{key}</arg_key>\n<arg_value>",
    ),
    Written(
        "glm45",
        f"<tool_call>get.time{_glm('')}</tool_call><tool_call>f</tool_call>",
        "<tool_call>{name}<arg_key>{key}</arg_key><arg_value>",
    ),
    Written(
        "hy_v3",
        "<tool_calls:opensource>\n<tool_call:opensource>get.time<tool_sep:opensource>\n"
        + _glm("\n", ":opensource")
        + "</tool_call:opensource>\n<tool_call:opensource>f<tool_sep:opensource>\n</tool_call:opensource>\n"
        "</tool_calls:opensource>",
        "{% set k = ':opensource' %}<tool_sep{}>",
    ),
    Written(
        "minimax_m2",
        f'<minimax:tool_call>\n<invoke name="get.time">\n<parameter name="city">{CITY}</parameter>\n'
        f'<parameter name="n">{LIST}</parameter>\n<parameter name="days">3</parameter>\n</invoke>\n'
        '<invoke name="f">\n</invoke>\n</minimax:tool_call>',
        "<minimax:tool_call>",
    ),
    Written(
        "minicpm5",
        f'<function name="get.time"><param name="city"><![CDATA[{CITY}]]></param><param name="n">{LIST}</param>'
        '<param name="days">3</param></function><function name="f"></function>',
        "<function name=\"' ~ n ~ '\"><param name=\"' ~ k ~ '\">",
    ),
    Written("deepseek_v32", _dsml("function_calls"), "<｜DSML｜function_calls>"),
    Written("deepseek_v4", _dsml("tool_calls"), "<｜DSML｜tool_calls>"),
    Written(
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get.time\n```json\n"
        f"{JSON}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{{}}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜>```json",
    ),
    Written(
        "deepseek_v31",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get.time<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜>",
    ),
    Written(
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get.time:0<|tool_call_argument_begin|>"
        f"{JSON}<|tool_call_end|><|tool_call_begin|>functions.f:1<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        "<|tool_calls_section_begin|>",
    ),
    Written(
        "kimi_k3",
        '<|open|>tools<|sep|><|open|>call tool="get.time" index="1"<|sep|>'
        + "".join(
            f'<|open|>argument key="{name}" type="{kind}"<|sep|>{value}<|close|>argument<|sep|>'
            for name, kind, value in (("city", "string", CITY), ("n", "array", LIST), ("days", "number", "3"))
        )
        + '<|close|>call<|sep|><|open|>call tool="f" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
        "{{ '<|open|>' }}{{ '<|close|>' }}{{ '<|sep|>' }}",
    ),
    Written(
        "minimax_m3",
        f'{M3}<tool_call>\n{M3}<invoke name="get.time">{M3}<city>{CITY}{M3}</city>'
        f"{M3}<n>{M3}<item>1{M3}</item>{M3}<item>-2.5{M3}</item>{M3}<item>{M3}<x>null{M3}</x>{M3}</item>{M3}</n>"
        f'{M3}<days>3{M3}</days>{M3}</invoke>\n{M3}<invoke name="f">{M3}</invoke>\n{M3}</tool_call>',
        "{% set ns = ']<]minimax[>[' %}",
    ),
    Written(
        "step3",
        '<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="get.time">'
        f'<steptml:parameter name="city">{CITY}</steptml:parameter>'
        f'<steptml:parameter name="n">{LIST}</steptml:parameter>'
        '<steptml:parameter name="days">3</steptml:parameter></steptml:invoke><｜tool_call_end｜>'
        '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="f"></steptml:invoke><｜tool_call_end｜>'
        "<｜tool_calls_end｜>",
        "<｜tool_calls_begin｜><steptml:invoke",
    ),
    Written(
        "functionary_v3_1",
        f"<function=get.time>{JSON}</function><function=f>{{}}</function>",
        "<|start_header_id|>{{ '<function=' }}</function>",
    ),
    Written(
        "solar_open",
        f"<|tool_calls|><|tool_call:begin|>abcdefgh1<|tool_call:name|>get.time<|tool_call:args|>{JSON}<|tool_call:end|>"
        "<|tool_call:begin|>abcdefgh2<|tool_call:name|>f<|tool_call:args|>{}<|tool_call:end|><|calls|>",
        "<|tool_calls|><|tool_call:begin|>",
    ),
    Written("apertus", f'<|tools_prefix|>[{{"get.time": {JSON}}}, {{"f": {{}}}}]<|tools_suffix|>', "<|tools_prefix|>"),
    Written("granite", f"<|tool_call|>{_LIST}", "only with <|tool_call|> followed by"),
    Written("phi4_mini_json", f"<|tool_call|>{_LIST}<|/tool_call|>", "<|tool_call|><|/tool_call|>"),
    Written("jamba", f"<tool_calls>{_LIST}</tool_calls>", "<tool_calls>["),
    Written("nemotron_json", f"<TOOLCALL>{_LIST}</TOOLCALL>", "<TOOLCALL>["),
    Written(
        "cohere_command3",
        f'<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "get.time", "parameters": {JSON}}}, '
        '{"tool_call_id": "1", "tool_name": "f", "parameters": {}}]<|END_ACTION|>',
        "<|START_ACTION|>",
    ),
    Written(
        "internlm",
        f'<|action_start|><|plugin|>\n{{"name": "get.time", "parameters": {JSON}}}<|action_end|>',
        "<|action_start|><|plugin|>",
        1,
    ),
    Written("gigachat3", f'<|function_call|>{{"name": "get.time", "arguments": {JSON}}}', "<|function_call|>", 1),
    Written(
        "gigachat3",
        f'<|message_sep|>\n\nfunction call<|role_sep|>\n{{"name": "get.time", "arguments": {JSON}}}',
        "function call <|role_sep|>",
        1,
    ),
    Written(
        "longcat",
        f'<longcat_tool_call>\n{{"name": "get.time", "arguments": {JSON}}}\n</longcat_tool_call>\n'
        '<longcat_tool_call>\n{"name": "f", "arguments": {}}\n</longcat_tool_call>',
        "<longcat_tool_call>",
    ),
    Written("pythonic", f"[{_PYTHON}, f()]", "<|python_start|>[func_name1(params_name1=params_value1)]"),
    Written("lfm2", f"<|tool_call_start|>[{_PYTHON}, f()]<|tool_call_end|>", "<|tool_call_start|>["),
    Written("olmo3", f"<function_calls>{_PYTHON}\nf()</function_calls>", "<function_calls>"),
    Written(
        "gemma4",
        f"<|tool_call>call:get.time{_GEMMA}<tool_call|><|tool_call>call:f{{}}<tool_call|>",
        "<|tool_call>call:",
    ),
    Written(
        "functiongemma",
        f"<start_function_call>call:get.time{_GEMMA}<end_function_call>".replace('<|"|>', "<escape>"),
        "<start_function_call>",
        1,
    ),
]
