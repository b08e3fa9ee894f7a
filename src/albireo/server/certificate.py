"""The certificate of HTTPS: looked at before anything is loaded, and read again when its files are others.

Used by run.py. What renews certificates (certbot, cert-manager) writes them beside and renames; connections that are
open keep the one that they began with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from typing import Any

import msgspec

from albireo.errors import ConfigError
from albireo.server.settings import ServerSettings

_LOG = logging.getLogger("albireo.server")

#: Seconds between looks at the files.
LOOK_S = 1.0


def check_certificate(settings: ServerSettings) -> None:
    """Raises: ConfigError where HTTPS cannot be served with the files that are named."""
    if settings.ssl_certfile is None:
        return
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
    except OSError as error:
        raise ConfigError(
            f"ssl_certfile={settings.ssl_certfile} and ssl_keyfile={settings.ssl_keyfile} are no certificate and its "
            f"key, in PEM and without a password ({error.strerror or error}); give others"
        ) from None


async def keep_certificate(settings: ServerSettings, config: Any) -> None:
    """Serve new connections with what the files hold. One that is no certificate of its key, as while one of the two
    is written and the other is not, is looked at again. Args: config: uvicorn's, whose context is changed."""
    if settings.ssl_certfile is None:
        return
    served = told = _marks(settings)
    while True:
        await asyncio.sleep(LOOK_S)
        now = _marks(settings)
        if now == served or config.ssl is None:
            continue
        try:
            # a context that fails half way is not to be served
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
            _load(config.ssl, settings)
        except OSError as error:
            if now != told:
                _say("certificate_not_read", reason=error.strerror or str(error))
            told = now
            continue
        served = told = now
        _say("certificate_read")


def _load(context: ssl.SSLContext, settings: ServerSettings) -> None:
    assert settings.ssl_certfile is not None, "the caller has looked"
    # a key that wants a password is refused: OpenSSL would ask for it where the server was started, and all would wait
    context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")


def _marks(settings: ServerSettings) -> list[tuple[int, int, int] | None]:
    """Of each file, what tells it from another one."""
    found: list[tuple[int, int, int] | None] = []
    for path in (settings.ssl_certfile, settings.ssl_keyfile):
        try:
            stat = os.stat(path or "")
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def _say(event: str, **more: str) -> None:
    line = {"time": round(time.time(), 3), "event": event, **more}
    _LOG.info("%s", msgspec.json.encode(line).decode())
