"""Bytes of pictures from URLs of data, files and hosts: only what is allowed, and never more than is allowed."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import InvalidParams
from albireo.media.medium import PICTURE, SOUND, VIDEO
from albireo.media.sources import MediaSources, UrlFetcher, read_base64, read_data_url, read_local

DATA = bytes(range(256)) * 5
TEXT = base64.b64encode(DATA).decode()


def test_data_urls_are_read() -> None:
    assert read_data_url(f"data:image/png;base64,{TEXT}", PICTURE) == DATA
    assert read_data_url(f"DATA:image/svg+xml;charset=utf-8;Base64,{TEXT}", PICTURE) == DATA
    assert read_base64(TEXT, PICTURE) == DATA


@pytest.mark.parametrize(
    "url",
    [
        TEXT,
        "data:image/png;base64",
        f"data:text/html;base64,{TEXT}",
        f"data:image/png,{TEXT}",
        f"data:,{TEXT}",
        "http://a/b,",
    ],
    ids=lambda url: url[:20],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidParams, match=r"data:image/\.\.\.;base64,\.\.\. is wanted"):
        read_data_url(url, PICTURE)


@pytest.mark.parametrize(
    "text", ["A", "AAA", "AA=A", "AAAA=", "AAAA\n", "A A=", "AA_-", "%41%41%3D%3D", "ä", "AAAA===="]
)
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(InvalidParams, match="is not base64"):
        read_data_url(f"data:image/png;base64,{text}", PICTURE)


def test_base64_is_bounded() -> None:
    small = replace(PICTURE, max_bytes=len(DATA))
    assert read_base64(TEXT, small) == DATA
    with pytest.raises(InvalidParams, match=f"at most {len(DATA)} bytes"):
        read_base64(TEXT + "AAAA", small)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Allowed, with a picture in it; one is beside it."""
    allowed = tmp_path / "allowed"
    (allowed / "in it").mkdir(parents=True)
    (allowed / "in it" / "a ü.png").write_bytes(DATA)
    (tmp_path / "beside.png").write_bytes(DATA)
    (tmp_path / "allowed too").mkdir()
    (tmp_path / "allowed too" / "b.png").write_bytes(DATA)
    return allowed


def test_files_below_the_folder_are_read(folder: Path) -> None:
    path = folder / "in it" / "a ü.png"
    (folder / "link.png").symlink_to(path)
    for given in (str(path), path.as_uri(), f"file://localhost{path.as_uri()[7:]}", "in it/a ü.png", "link.png"):
        assert read_local(given, folder, PICTURE) == DATA, given
    linked = folder.parent / "a link to the folder"
    linked.symlink_to(folder)
    assert read_local(str(path), linked, PICTURE) == DATA


def test_no_file_is_read_unless_a_folder_is_named(folder: Path) -> None:
    with pytest.raises(InvalidParams, match="--allowed-local-media-path"):
        read_local(str(folder / "in it" / "a ü.png"), None, PICTURE)


def test_files_elsewhere_are_refused_whether_they_are_there_or_not(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "beside.png")
    (folder / "up").symlink_to(folder.parent)
    beside = ["../beside.png", "out.png", "up/beside.png", str(folder.parent / "beside.png"), "in it/../../beside.png"]
    beside += ["../allowed too/b.png", "/etc/passwd", f"file://{folder}/%2e%2e/beside.png", "../not there.png"]
    for given in beside:
        with pytest.raises(InvalidParams, match="is not below the folder"):
            read_local(given, folder, PICTURE)


def test_what_cannot_be_read_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "large.png").write_bytes(bytes(2001))
    cases = {"none.png": "No such file", "pipe.png": "not a regular file", "in it": "not a regular file"}
    cases |= {"loop.png": "no path of a file", "a\0b": "no path of a file", "large.png": "more than 2000 bytes"}
    cases |= {"file://elsewhere/a.png": "another machine"}
    for given, told in cases.items():
        with pytest.raises(InvalidParams, match=told):
            read_local(given, folder, replace(PICTURE, max_bytes=2000))


def test_what_is_said_of_sounds_is_of_sounds(folder: Path) -> None:
    found = MediaSources(SOUND, folder, ())
    assert found.opened(f"data:audio/wav;base64,{TEXT}") == found.opened(TEXT) == DATA
    assert found.opened("file:in%20it/a%20ü.png") == DATA and found.opened(3) == 3
    for given, told in {
        f"data:image/png;base64,{TEXT}": "data:audio/...;base64,... is wanted",
        "https://a.example/b.mp3": "or send the sound as a data: URL",
    }.items():
        with pytest.raises(InvalidParams, match=re.escape(told)):
            found.opened(given)


def test_what_is_said_of_videos_is_of_videos(folder: Path) -> None:
    found = MediaSources(VIDEO, folder, ())
    for kind in ("video/mp4", "video/webm", "image/gif", "image/webp", "image/apng"):
        assert found.opened(f"data:{kind};base64,{TEXT}") == DATA
    for given, told in {
        f"data:image/jpeg;base64,{TEXT}": "data:video/...;base64,... is wanted",
        "https://a.example/b.mp4": "or send the video as a data: URL",
    }.items():
        with pytest.raises(InvalidParams, match=re.escape(told)):
            found.opened(given)


class Answers(BaseHTTPRequestHandler):
    """/redirect/N leads to N - 1, and 0 to /picture; other paths are what they say."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, _, rest = self.path[1:].partition("/")
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if kind == "redirect":
            left = int(rest)
            self.head(302, Location=f"/redirect/{left - 1}" if left else "/picture")
        elif kind == "away":
            self.head(301, Location=rest)
        elif kind == "secret":
            self.head(403, b"the secret body")
        elif kind == "picture":
            self.head(200, DATA)
        elif kind == "chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(rest)):
                self.wfile.write(b"100\r\n" + bytes(256) + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        elif kind == "broken":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(10))
            self.close_connection = True
        elif kind in ("dripping", "endless"):
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                while not self.server.is_over.wait(0.02):  # type: ignore[attr-defined]
                    self.wfile.write(b"x")
        elif kind == "silent":
            self.server.is_over.wait(30)  # type: ignore[attr-defined]

    def head(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@contextlib.contextmanager
def serving() -> Iterator[Any]:
    with Quiet(("127.0.0.1", 0), Answers) as server:
        server.is_over, server.asked = threading.Event(), []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.is_over.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients here break off."""


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with serving() as server:
        yield server


@pytest.fixture
def root(server: Any) -> str:
    server.asked.clear()
    return f"http://127.0.0.1:{server.server_port}"


def fetcher(*hosts: str, timeout_s: float = 20.0, max_bytes: int = 1 << 20) -> UrlFetcher:
    return UrlFetcher(hosts or ("127.0.0.1",), timeout_s, PICTURE, max_bytes)


def test_pictures_are_fetched(root: str) -> None:
    assert fetcher().fetch(f"{root}/picture") == DATA
    assert fetcher().fetch(f"{root}/chunks/3") == bytes(768)
    assert fetcher("LocalHost.").fetch(root.replace("127.0.0.1", "localhost") + "/picture") == DATA


def test_paths_are_asked_for_as_they_are(root: str, server: Any) -> None:
    assert fetcher().fetch(f"{root}/picture/a%20ü b?c=d%2F e&f#g") == DATA
    assert server.asked == ["/picture/a%20%C3%BC%20b?c=d%2F%20e&f"]


def test_without_allowed_hosts_none_is_asked(root: str, server: Any) -> None:
    with pytest.raises(InvalidParams, match=r"--allowed-media-domains names .* data: URL"):
        UrlFetcher((), 1.0, PICTURE, 1000).fetch(f"{root}/picture")
    assert server.asked == []


def test_only_allowed_hosts_are_asked(root: str, server: Any) -> None:
    for hosts in (("example.org",), ("127.0.0",), ("0.0.1",), ("127.0.0.11",)):
        with pytest.raises(InvalidParams, match="not among the hosts"):
            fetcher(*hosts).fetch(f"{root}/picture")
    assert server.asked == []


def test_any_host_is_none_inside_this_network(root: str, server: Any) -> None:
    port = server.server_port
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"):
        with pytest.raises(InvalidParams, match="inside this network"):
            fetcher("*").fetch(f"http://{host}:{port}/picture")
    assert server.asked == []
    assert fetcher("*", "127.0.0.1").fetch(f"{root}/picture") == DATA


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    root: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose address changes behind the check: it is looked up once."""
    known = ["93.184.215.14", "127.0.0.1"]
    connected = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known.pop(0), port))]

    def connect(_: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InvalidParams, match="ConnectionRefusedError"):
        fetcher("*").fetch("http://example.org/picture")
    assert connected == [("93.184.215.14", 80)]


def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # the second and two further are 169.254.169.254 for a network that translates; ::7f00:1 was 127.0.0.1 at first
    translated = ("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "::ffff:0:a9fe:a9fe")
    for inside in ("10.1.2.3", *translated, "::7f00:1", "fec0::1"):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80)) for each in ("93.184.215.14", inside)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        with pytest.raises(InvalidParams, match="inside this network"):
            fetcher("*").fetch("http://example.org/picture")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/a",
        "file:///etc/passwd",
        "//127.0.0.1/a",
        "picture.png",
        "http://",
        "http://a:b@127.0.0.1/c",
        "http://x@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://127.0.0.1\u3002/",
    ],
)
def test_other_urls_are_no_urls_of_pictures(url: str) -> None:
    with pytest.raises(InvalidParams, match="is no URL of a picture"):
        fetcher("127.0.0.1", "*").fetch(url)


def test_three_redirects_are_followed_and_no_more(root: str, server: Any) -> None:
    assert fetcher().fetch(f"{root}/redirect/2") == DATA
    assert server.asked == ["/redirect/2", "/redirect/1", "/redirect/0", "/picture"]
    with pytest.raises(InvalidParams, match="more than 3 times"):
        fetcher().fetch(f"{root}/redirect/3")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("http://localhost:1/", "not among the hosts"),
        ("file:///etc/passwd", "no URL of a picture"),
        ("data:image/png;base64,AAAA", "no URL of a picture"),
    ],
)
def test_redirects_lead_to_allowed_hosts_only(root: str, place: str, told: str) -> None:
    with pytest.raises(InvalidParams, match=told):
        fetcher().fetch(f"{root}/away/{place}")


def test_refusals_tell_no_word_of_an_answer(root: str) -> None:
    with pytest.raises(InvalidParams, match="status 403") as caught:
        fetcher().fetch(f"{root}/secret")
    assert "body" not in str(caught.value)


@pytest.mark.parametrize("path", ["picture", "chunks/100", "endless"])
def test_no_more_is_read_than_is_allowed(root: str, path: str) -> None:
    with pytest.raises(InvalidParams, match="more than 100 bytes"):
        fetcher(max_bytes=100).fetch(f"{root}/{path}")


def test_an_answer_that_breaks_off_is_refused(root: str) -> None:
    with pytest.raises(InvalidParams, match="broke off 990 bytes before its end"):
        fetcher().fetch(f"{root}/broken")


@pytest.mark.parametrize("path", ["silent", "dripping"])
def test_an_answer_has_so_long_and_no_longer(root: str, path: str) -> None:
    """Also one that never ends, each byte of which comes in time."""
    with pytest.raises(InvalidParams, match=r"has not answered within 0\.2 s"):
        fetcher(timeout_s=0.2).fetch(f"{root}/{path}")


def test_hosts_that_do_not_answer_are_told(root: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InvalidParams, match="cannot be fetched: ConnectionRefusedError"):
            fetcher().fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    with pytest.raises(InvalidParams, match="cannot be fetched"):
        fetcher().fetch(root.replace("http:", "https:") + "/picture")


@pytest.fixture
def secure_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same answers over TLS, by a certificate that is trusted for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and is not here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([openssl, *made, *named], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with serving() as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        yield f"https://127.0.0.1:{secure.server_port}"


def test_pictures_are_fetched_over_tls(secure_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetcher().fetch(f"{secure_root}/redirect/1") == DATA
    with pytest.raises(InvalidParams, match=r"has not answered within 0\.5 s"):
        fetcher(timeout_s=0.5).fetch(f"{secure_root}/dripping")
    with pytest.raises(InvalidParams, match="cannot be fetched: SSLCertVerificationError"):
        fetcher("localhost").fetch(secure_root.replace("127.0.0.1", "localhost"))
    monkeypatch.undo()
    with pytest.raises(InvalidParams, match="cannot be fetched: SSLCertVerificationError"):
        fetcher().fetch(f"{secure_root}/picture")
