"""Where the bytes of a picture, a sound or a video come from: a data: URL or base64, a file below an allowed folder,
an allowed host.

Called by the front doors. All is bounded before it is kept. Whoever names a file or a URL makes this machine read on
their behalf, so both are refused until the operator says which folder, which hosts. Does not look at what bytes are.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from albireo.errors import InvalidParams, short
from albireo.media.medium import Medium

MAX_REDIRECTS = 3
#: Seconds that a host has for one.
FETCH_TIMEOUT_S = 10.0
_ANY_HOST = "*"
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All of IPv6 that is anywhere else (RFC 4291, 2.4). Beside it lie networks of a site and what some of these translate
#: (RFC 8215, RFC 7915), which libraries do not all call private.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_REDIRECTS = (301, 302, 303, 307, 308)
#: What stays in a path and in a query as it is; of what is quoted already, the percent.
_UNQUOTED = "/?%:@!$&'()*+,;=~[]"
_HEADERS = {"User-Agent": "albireo", "Connection": "close"}


def read_data_url(url: str, medium: Medium) -> bytes:
    """What data:image/...;base64,... holds. Raises: InvalidParams for another URL, for damage and for too much."""
    head, comma, body = url.partition(",")
    if not comma or head[:5].lower() != "data:":
        raise InvalidParams(f"{short(url)} is no data: URL; {medium.data_url}")
    kind, *parameters = head[5:].lower().split(";")
    if not kind.startswith(medium.types) or "base64" not in parameters:
        raise InvalidParams(f"a data: URL begins with {short(head)}; {medium.data_url}")
    return read_base64(body, medium)


def read_base64(text: str, medium: Medium) -> bytes:
    """The bytes of strict base64, padded, without spaces. Raises: InvalidParams; also for more than a medium has."""
    if len(text) > (medium.max_bytes + 2) // 3 * 4:
        raise InvalidParams(
            f"{len(text)} characters of base64 are too many: a {medium.name} has at most {medium.max_bytes} bytes"
        )
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidParams(f"{short(text)} is not base64: {error}; send it padded and without spaces") from None
    # padding that is not needed passes there
    if len(text) != (len(data) + 2) // 3 * 4:
        raise InvalidParams(f"{short(text[-8:])} is not base64: it ends with too much padding")
    return data


def read_local(path_or_file_url: str, allowed: Path | None, medium: Medium) -> bytes:
    """A regular file below the folder allowed, where a path that is not absolute begins.

    Raises: InvalidParams for anything else, wherever links lead; and for every path when allowed is None.
    """
    if allowed is None:
        raise InvalidParams(
            f"{short(path_or_file_url)}: no file of this machine may be read; --allowed-local-media-path names the "
            f"folder whose may be, or send the {medium.name} as a data: URL"
        )
    given = _file_path(path_or_file_url)
    try:
        folder = allowed.resolve(strict=True)
        path = (folder / given).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte
        raise InvalidParams(f"{short(path_or_file_url)} is no path of a file") from None
    if not path.is_relative_to(folder):
        raise InvalidParams(f"{short(path_or_file_url)} is not below the folder of --allowed-local-media-path")
    try:
        # a pipe is not waited for, and a link that came since is not followed
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidParams(f"{short(path_or_file_url)} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InvalidParams(f"{short(path_or_file_url)} is not a regular file")
    with open(handle, "rb") as file:
        data = file.read(medium.max_bytes + 1)
    if len(data) > medium.max_bytes:
        raise InvalidParams(f"{short(path_or_file_url)} has more than {medium.max_bytes} bytes: send {medium.less}")
    return data


def _file_path(path_or_file_url: str) -> str:
    if path_or_file_url[:5].lower() != "file:":
        return path_or_file_url
    parts = urlsplit(path_or_file_url)
    if parts.netloc not in ("", "localhost"):
        raise InvalidParams(f"{short(path_or_file_url)} is on another machine; file:///path is wanted")
    return unquote(parts.path)


class UrlFetcher:
    """Fetches pictures, sounds or videos from hosts that may be asked. May be used by many threads.

    Proxies that the environment names are not used: they look addresses up themselves.

    Args:
        allowed_domains: hosts, without ports. "*" is any, but not at an address inside this network: a host there must
            be named itself.
        timeout_s: of each URL on the way, whole.
    """

    def __init__(
        self, allowed_domains: Sequence[str], timeout_s: float, medium: Medium, max_bytes: int | None = None
    ) -> None:
        self._allowed = frozenset(each.lower().rstrip(".") for each in allowed_domains)
        self._timeout_s = timeout_s
        self._medium = medium
        self._max_bytes = medium.max_bytes if max_bytes is None else max_bytes

    def fetch(self, url: str) -> bytes:
        """What the URL answers. Raises: InvalidParams, in which no word of the answer is."""
        place = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(place, self._checked(place))
            if isinstance(answer, bytes):
                return answer
            place = urljoin(place, answer)
        raise InvalidParams(f"{short(url)} is redirected more than {MAX_REDIRECTS} times; name its last place")

    def _checked(self, url: str) -> SplitResult:
        if not self._allowed:
            raise InvalidParams(
                f"{short(url)}: no host may be asked; --allowed-media-domains names those that may be, or send the "
                f"{self._medium.name} as a data: URL"
            )
        try:
            parts = urlsplit(url)
            host = _host(parts) if parts.port is None or parts.port else ""
        except ValueError:
            host = ""
        if not host.isascii() or not host or parts.scheme not in _PORTS or "@" in parts.netloc:
            raise InvalidParams(
                f"{short(url)} is no URL of a {self._medium.name}; http(s)://host/path or a data: URL is wanted"
            )
        if host not in self._allowed and _ANY_HOST not in self._allowed:
            raise InvalidParams(
                f"{short(url)}: {short(host)} is not among the hosts that --allowed-media-domains names; send the "
                f"{self._medium.name} as a data: URL"
            )
        return parts

    def _ask(self, url: str, parts: SplitResult) -> bytes | str:
        """The body, or where that is said to be."""
        connection = _Connection(parts, self._timeout_s, is_named=_host(parts) in self._allowed)
        timer = Timer(self._timeout_s, connection.cut)
        timer.daemon = True
        try:
            timer.start()
            path = quote(parts.path or "/", safe=_UNQUOTED) + (parts.query and "?" + quote(parts.query, safe=_UNQUOTED))
            accepted = ", ".join(f"{each}*" if each.endswith("/") else each for each in self._medium.types)
            connection.request("GET", path, headers={"Host": parts.netloc, "Accept": accepted, **_HEADERS})
            with connection.getresponse() as response:
                place = response.getheader("Location")
                if response.status in _REDIRECTS and place:
                    return place
                data = self._body(url, response)
        except TimeoutError:
            connection.is_cut = True
        except InvalidParams:
            if not connection.is_cut:
                raise
        except (OSError, HTTPException, ValueError) as error:
            if not connection.is_cut:
                raise InvalidParams(f"{short(url)} cannot be fetched: {type(error).__name__}") from None
        finally:
            timer.cancel()
            connection.close()
        # what was cut may look whole
        if connection.is_cut:
            raise InvalidParams(f"{short(url)} has not answered within {self._timeout_s:g} s")
        return data

    def _body(self, url: str, response: HTTPResponse) -> bytes:
        if response.status != 200:
            raise InvalidParams(f"{short(url)} answers with status {response.status}, not with a {self._medium.name}")
        is_long = response.length is not None and response.length > self._max_bytes
        data = b"" if is_long else response.read(self._max_bytes + 1)
        if is_long or len(data) > self._max_bytes:
            raise InvalidParams(f"{short(url)} has more than {self._max_bytes} bytes: send {self._medium.less}")
        if response.length:
            raise InvalidParams(f"{short(url)} broke off {response.length} bytes before its end")
        return data


class MediaSources:
    """Finds the pictures, sounds or videos that requests name. Threads may share it."""

    def __init__(self, medium: Medium, folder: Path | None, hosts: Sequence[str]) -> None:
        """Args: folder: whose files may be read; None: none may. hosts: that may be asked."""
        self._medium, self._folder = medium, folder
        self._fetcher = UrlFetcher(hosts, FETCH_TIMEOUT_S, medium)

    def opened(self, value: Any) -> Any:
        """The bytes of what a text says: a URL (data:, http:, https:, file:), or base64. What is no text stays.

        Raises: InvalidParams saying what is wrong with it, or what may not be read.
        """
        if not isinstance(value, str):
            return value
        scheme = value[:8].partition(":")[0].lower() if ":" in value[:8] else ""
        if scheme == "data":
            return read_data_url(value, self._medium)
        if scheme in ("http", "https"):
            return self._fetcher.fetch(value)
        if scheme == "file":
            return read_local(value, self._folder, self._medium)
        return read_base64(value, self._medium)


class _Connection(HTTPConnection):
    """To the host of a URL, at an address that was checked; cut() ends it from another thread."""

    def __init__(self, parts: SplitResult, timeout_s: float, is_named: bool) -> None:
        super().__init__(_host(parts), parts.port or _PORTS[parts.scheme], timeout=timeout_s)
        self.is_cut = False
        self._is_secure = parts.scheme == "https"
        self._is_named = is_named
        # sock is forgotten as soon as an answer begins that ends with the connection
        self._to_cut: socket.socket | None = None

    def connect(self) -> None:
        sock = _connected(self.host, self.port, self.timeout, self._is_named)
        if self._is_secure:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self._to_cut = sock
        if self.is_cut:
            raise TimeoutError
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()

    def cut(self) -> None:
        self.is_cut = True
        if self._to_cut is not None:
            with contextlib.suppress(OSError):
                # a TLS socket's own shutdown would take its keys from under a read
                socket.socket.shutdown(self._to_cut, socket.SHUT_RDWR)


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".")


def _connected(host: str, port: int, timeout_s: float | None, is_named: bool) -> socket.socket:
    """To the first address that answers. Raises: InvalidParams when any is inside this network and is_named is not."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not is_named and not all(_is_outside(str(address[0])) for *_, address in found):
        raise InvalidParams(
            f"{short(host)} has an address inside this network; there, only hosts are asked that "
            "--allowed-media-domains names themselves"
        )
    error = OSError("no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(timeout_s)
        try:
            sock.connect(address)
        except OSError as failure:
            sock.close()
            error = failure
        else:
            return sock
    raise error


def _is_outside(address: str) -> bool:
    place = ipaddress.ip_address(address)
    if isinstance(place, ipaddress.IPv6Address):
        stands_for = place.ipv4_mapped or place.sixtofour or _translated(place)
        if stands_for is None and place not in _UNICAST:
            return False
        place = stands_for or place
    return place.is_global and not place.is_multicast


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Where a network that translates (NAT64, RFC 6052) sends what goes to an address."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
