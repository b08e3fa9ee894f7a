"""What tests of tool calls ask for: a template in Hermes' format, two tools, and a model that thinks when told to."""

from __future__ import annotations

from typing import Any

#: Hermes' format, in few tokens: the bundled model's context is short.
TEMPLATE = (
    "{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.parameters | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}</tool_call>{% endfor %}\n{% endfor %}"
    "{% if think or enable_thinking %}<think>{% endif %}{# </think> #}{% set x = '</think>' %}"
)
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK = {
    "type": "object",
    "properties": {"utc": {"type": "boolean"}},
    "required": ["utc"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": WEATHER, "clock": CLOCK}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "…", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
MESSAGES = [{"role": "user", "content": "Once upon a time"}]
ASK: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 300, "temperature": 1.0, "tools": TOOLS}
NAMED = {"type": "function", "function": {"name": "clock"}}
