"""Tells whoever runs the server that a chat template leaves out the tools it is given: the model never hears of them.

Used by intake.py. Does not know how templates are rendered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from albireo.parsers.written_calls import Tool

_LOG = logging.getLogger("albireo.server")
#: Most templates that are remembered; of requests that bring their own there may be any number.
_MOST = 64


class UnshownTools:
    """Invariant: one warning a template."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def look(self, tools: Sequence[Tool], prompt: str, template: str, name: str) -> None:
        """Warn, if a prompt names none of the tools.

        Args: tools: that may be called. template: what rendered the prompt; name: what it is called.
        """
        if not tools or template in self._warned or len(self._warned) >= _MOST:
            return
        if any(tool.name in prompt for tool in tools):
            return
        self._warned.add(template)
        _LOG.warning(
            "%s shows no tools: a request has %d (%.60s …), and none is in its prompt, so that the model does not "
            "know them; start the server with --chat-template FILE, a template that goes through `tools`, or describe "
            "them in a message",
            name,
            len(tools),
            tools[0].name,
        )
