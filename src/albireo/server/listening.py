"""The socket that a server listens on: a port, or a file (Unix socket) that is taken away again at the end.

Used by run.py. Does not know what is served.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from albireo.errors import ConfigError
from albireo.server.settings import ServerSettings

BACKLOG = 2048


class Listening:
    """Attributes: socket: open, and listened on; address: how it is told."""

    def __init__(self, settings: ServerSettings) -> None:
        """Before anything is loaded. Raises: ConfigError where nothing can be listened on."""
        self._path = None if settings.uds is None else Path(settings.uds).absolute()
        self._inode = 0
        scheme = "https" if settings.ssl_certfile else "http"
        if self._path is not None:
            self.socket = self._at_path(self._path)
            self.address = f"{scheme}+unix:{self._path}"
            return
        self.socket = _at_port(settings)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{scheme}://{host}:{self.socket.getsockname()[1]}"

    def close(self) -> None:
        """Listen no more. The file goes, unless another server has put its own there."""
        self.socket.close()
        if self._path is not None and _inode(self._path) == self._inode:
            self._path.unlink(missing_ok=True)

    def _at_path(self, path: Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            _drop_stale(path)
            made.bind(os.fspath(path))
            self._inode = _inode(path)
            made.listen(BACKLOG)
        except OSError as error:
            made.close()
            raise ConfigError(f"cannot listen on uds={path} ({error.strerror or error}); take another") from None
        except ConfigError:
            made.close()
            raise
        return made


def _at_port(settings: ServerSettings) -> socket.socket:
    try:
        # a name may have addresses of either kind, or of IPv6 alone
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = socket.AF_INET if any(each[0] == socket.AF_INET for each in found) else socket.AF_INET6
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, ValueError) as error:  # ValueError: a name that can be none, as "a..b"
        if not isinstance(error, OSError):
            reason = "it is no name of a host"
        elif isinstance(error, socket.gaierror):
            reason = error.strerror or str(error)
        else:  # what is said of a bind() has the address once more
            reason = os.strerror(error.errno or errno.EINVAL)
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port} ({reason}); take another") from None


def _drop_stale(path: Path) -> None:
    """Take a socket away that a server left behind which was killed. Raises: ConfigError for anything else there."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConfigError(f"cannot listen on uds={path}: a file that is no socket is there; take another")
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(os.fspath(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
                return
            raise
    raise ConfigError(f"cannot listen on uds={path}: another server listens there; end it, or take another")


def _inode(path: Path) -> int:
    """0 where there is nothing."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0
