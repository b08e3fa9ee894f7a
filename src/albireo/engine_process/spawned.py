"""A process that was told where to connect: its socket, its ledger, its command.

Made by process.py; and by cli/serve.py before it imports what a server is made of, so that both are imported at once.
Light for that reason. Does not know messages, nor what an end means.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albireo.engine_process import ledger
from albireo.own_python import command_of
from albireo.system import LONGEST_SOCKET_PATH

#: How the worker is started; the paths of socket and ledger follow.
COMMAND = command_of("albireo.engine_process")


class Spawned:
    """A run that began. It connects to a socket in a directory that only this user can enter.

    Attributes:
        listening: where it connects; whoever takes it over closes it.
        notes: its ledger. process: itself.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Raises: OSError when there is none; nothing is left of it then."""
        self._directory = _directory()
        self.notes = self._directory / "ledger"
        self.listening = socket.socket(socket.AF_UNIX)
        try:
            ledger.create(self.notes)
            path = self._directory / "engine.sock"
            self.listening.bind(str(path))
            self.listening.listen(1)
            self.process = subprocess.Popen([*command, str(path), str(self.notes)], stdin=subprocess.DEVNULL)
        except BaseException as error:
            self.listening.close()
            self.clear()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self._directory)  # a disk that is full, say
            raise

    def clear(self) -> None:
        """Take its files away."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def end(self) -> None:
        """End a process that nobody took over."""
        self.process.kill()  # first: it would take a closed socket for an error, and say so
        self.process.wait()
        self.listening.close()
        self.clear()


def _directory() -> Path:
    """A new directory that only this user can enter: in /tmp where TMPDIR's path is too long for a socket in it."""
    made = Path(tempfile.mkdtemp(prefix="albireo-"))
    if len(os.fsencode(made / "engine.sock")) > LONGEST_SOCKET_PATH:
        made.rmdir()
        made = Path(tempfile.mkdtemp(prefix="albireo-", dir="/tmp"))
    return made
