"""with_marks: a template that takes contents as texts, of a model that reads pictures -> one that takes parts, too.

Called by chat_prompt.py. As the authors of such models write prompts: a mark and a line break where a picture is.
"""

from __future__ import annotations

#: Contents are made texts first, so that the template sees what it was written for. Texts side by side are lines.
_BEFORE = """\
{%- set shown = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message.content is sequence and message.content is not string -%}
{%- set content = namespace(text='', is_text=false) -%}
{%- for part in message.content -%}
{%- if part is not string and part.type == 'image' -%}
{%- set content.text = content.text + 'MARK\\n' -%}
{%- set content.is_text = false -%}
{%- else -%}
{%- set content.text = content.text + ('\\n' if content.is_text else '') + (part if part is string else part.text) -%}
{%- set content.is_text = true -%}
{%- endif -%}
{%- endfor -%}
{%- set shown.messages = shown.messages + [dict(message, content=content.text)] -%}
{%- else -%}
{%- set shown.messages = shown.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = shown.messages %}{{ '' }}"""


def with_marks(source: str, mark: str) -> str:
    """Args: mark: the token that a prompt has where a picture is."""
    quoted = mark.replace("\\", "\\\\").replace("'", "\\'")
    return _BEFORE.replace("MARK", quoted) + source
