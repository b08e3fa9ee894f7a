"""/v1/files: upload, list, get, read and delete."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from albireo.server.batches.durable import private
from albireo.server.batches.runner import Batches
from albireo.server.batches.store import FILE_ID
from albireo.server.body import BODY_TIMEOUT_S, ClientGone
from albireo.server.endpoints.paging import asked_page
from albireo.server.errors import HttpError, busy
from albireo.server.multipart import Multipart, Part
from albireo.server.protocol.batches import Deleted, FileList, FileObject
from albireo.system import to_disk

#: Most files that are received at one time.
MAX_UPLOADS = 8
#: Beside the file there is at most so much in a body.
_AROUND = 64 << 10
_MAX_FILES_A_PAGE = 10_000
_MAX_NAME = 255


def enabled(batches: Batches | None) -> Batches:
    """Raises: HttpError 400 on a server without."""
    if batches is None:
        raise HttpError(
            400,
            "this server keeps no files and runs no batches; start it with --batch-dir DIR",
            code="batches_disabled",
        )
    return batches


class Upload:
    """POST /v1/files, as an ASGI application: a file goes to the disk as it comes."""

    def __init__(self, batches: Batches | None) -> None:
        self._batches = batches
        self._num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        batches = enabled(self._batches)
        if self._num_running >= MAX_UPLOADS:
            raise busy(429, f"{MAX_UPLOADS} files are being received already; come again later", "queue_full")
        self._num_running += 1
        path = batches.store.new_upload()
        try:
            form = _Form(path, batches.limits.max_bytes)
            try:
                await form.take(scope, receive)
            finally:
                await form.close()
            made = await batches.store.keep_upload(path, form.filename())
            await answer(made)(scope, receive, send)
        except ClientGone:
            return
        except OSError as error:
            raise no_space(error) from None
        finally:
            self._num_running -= 1
            path.unlink(missing_ok=True)


class _Form:
    """What the form of an upload says; the file's bytes are in a file of ours."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._file: BinaryIO | None = None
        self._name: str | None = None
        self._fields: dict[str, bytearray] = {}
        self._num_bytes = 0

    async def take(self, scope: Scope, receive: Receive) -> None:
        """All of a body. Raises: HttpError; ClientGone."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > 20 or int(length) > self._max_bytes + _AROUND):
            raise self._too_large()
        parts = Multipart(headers.get(b"content-type", b"").decode("latin-1"))
        target: bytearray | None = None
        async for data in _received(receive):
            for found in parts.feed(data):
                if isinstance(found, Part):
                    target = await self._begin(found)
                elif target is None:
                    await self._write(found)
                else:
                    target += found
                    if len(target) > 1024:
                        raise HttpError(400, "a field of the form is longer than 1,024 bytes", code="invalid_form")
        if not parts.is_over:
            raise HttpError(400, "the form ends without its last boundary", code="invalid_form")
        if self._file is not None:
            await asyncio.to_thread(self._sync, self._file)

    async def _begin(self, part: Part) -> bytearray | None:
        """Where the bytes of a part go; None: to the file."""
        if part.filename is None and part.name != "file":
            if part.name != "purpose":
                raise HttpError(
                    400, f"{part.name!r:.80} is not a field that is known here; leave it out", param=part.name[:80]
                )
            return self._fields.setdefault(part.name, bytearray())
        if part.name != "file" or self._file is not None:
            raise HttpError(400, "the form must have one file, whose field is named file", param="file")
        self._name = part.filename or "file"
        if len(self._name) > _MAX_NAME:
            raise HttpError(400, f"the file's name is longer than {_MAX_NAME} characters; shorten it", param="file")
        self._file = await asyncio.to_thread(open, self._path, "wb", opener=private)
        return None

    async def _write(self, data: bytes) -> None:
        self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            raise self._too_large()
        assert self._file is not None, "its part began"
        await asyncio.to_thread(self._file.write, data)

    def _sync(self, file: BinaryIO) -> None:
        file.flush()
        to_disk(file.fileno())

    async def close(self) -> None:
        """Nothing more is written."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    def filename(self) -> str:
        """What the file is called. Raises: HttpError 400 when the form is not what makes one."""
        purpose = self._fields.get("purpose")
        if self._name is None:
            raise HttpError(400, "the form has no file; send one in the field file", param="file")
        if purpose is None:
            raise HttpError(400, "the form has no purpose; it must be batch", param="purpose")
        if purpose != b"batch":
            shown = purpose[:40].decode("utf-8", "replace")
            raise HttpError(400, f"purpose={shown!r} is not supported; it must be batch", param="purpose")
        return self._name

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the file is larger than {self._max_bytes} bytes; make several of it, or raise --batch-max-file-bytes",
            code="file_too_large",
            headers={"connection": "close"},
        )


class FileEndpoints:
    """The others."""

    def __init__(self, batches: Batches | None) -> None:
        self._batches = batches

    async def list(self, http: Request) -> Response:
        """GET /v1/files."""
        store = enabled(self._batches).store
        page = asked_page(http, FILE_ID, limit=_MAX_FILES_A_PAGE, max_limit=_MAX_FILES_A_PAGE, has_order=True)
        purpose = http.query_params.get("purpose")
        found = [store.files[name] for name in sorted(store.files)]
        shown, has_more = page.of([each for each in found if purpose is None or each.purpose == purpose])
        return answer(FileList(shown, _id(shown[:1]), _id(shown[-1:]), has_more))

    async def one(self, http: Request) -> Response:
        """GET and DELETE /v1/files/{id}."""
        batches, name = enabled(self._batches), http.path_params["name"]
        if http.method == "DELETE":
            await batches.drop_file(name)
            return answer(Deleted(name))
        return answer(batches.store.file(name))

    async def content(self, http: Request) -> Response:
        """GET /v1/files/{id}/content."""
        store = enabled(self._batches).store
        made = store.file(http.path_params["name"])
        return FileResponse(store.content(made.id), media_type="application/octet-stream", filename=made.filename)


async def _received(receive: Receive) -> AsyncIterator[bytes]:
    """A body, as it comes. Raises: ClientGone; HttpError 408 when nothing comes for long."""
    while True:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                message = await receive()
        except TimeoutError:
            raise HttpError(408, "the file did not arrive in time", headers={"connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        if data := message.get("body", b""):
            yield data
        if not message.get("more_body", False):
            return


def no_space(error: OSError) -> HttpError:
    """The answer where the disk did not take it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HttpError(507, "there is no room for it on the server's disk; delete files", code="no_space")
    return HttpError(500, f"the server's disk did not take it ({error.strerror})", code="disk_failed")


def _id(found: list[FileObject]) -> str | None:
    return found[0].id if found else None


def answer(told: msgspec.Struct) -> Response:
    """An answer that is whole."""
    return Response(msgspec.json.encode(told), media_type="application/json")
