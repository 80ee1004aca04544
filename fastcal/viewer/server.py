"""A page on 127.0.0.1 that shows the cases of a folder, to whoever knows its address.

No path of a request is ever turned into a path of the disk. The first part of an address is a
random token, the second one of a fixed list of names, and cases and layers are looked up in the
lists that were made from the folders.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from fastcal.core.doors.failures import words
from fastcal.core.errors import DataError
from fastcal.viewer.folder import ViewedFolder
from fastcal.viewer.landmarks import landmarks
from fastcal.viewer.layers import ShownCase, Voxel
from fastcal.viewer.niivue import niivue_file
from fastcal.viewer.page import asset, served_page
from fastcal.viewer.payload import case_payload, row_payload, values_at, volume_bytes

HOST = "127.0.0.1"
_KEPT_CASES = 2
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the token would travel with it
    "X-Content-Type-Options": "nosniff",
}

Answer = tuple[str, bytes]
"""Media type and content."""


class _NotFound(Exception):
    """There is no such page, case or layer."""


class ViewServer(ThreadingHTTPServer):
    """Serves the viewer of one prediction folder.

    Args:
        folder: What is shown.
        case: The case that is opened first; None for the first of the list.
        port: The port, or 0 for any that is free.

    Raises:
        DataError: There is no such case.
        ImportError: nilearn is not installed.
        OSError: The port is taken.

    Example:
        >>> folder = ViewedFolder("predicted", "imagesTs")  # doctest: +SKIP
        >>> with ViewServer(folder) as server:  # doctest: +SKIP
        ...     print(server.url)
        ...     server.serve_forever()
        http://127.0.0.1:40001/SlM3xY.../
    """

    daemon_threads = True

    def __init__(self, folder: ViewedFolder, case: str | None = None, *, port: int = 0) -> None:
        rows = folder.rows
        chosen = rows[0].case if case is None else case
        folder.check_case(chosen)
        self._niivue = niivue_file()
        self._cases = {
            "title": str(folder.out),
            "chosen": chosen,
            "dice": folder.labels is not None,
            "rows": [row_payload(row) for row in rows],
        }
        self._folder, self._names = folder, frozenset(folder.cases)
        self._open: OrderedDict[str, ShownCase] = OrderedDict()
        self._lock = threading.Lock()
        self.token = secrets.token_urlsafe(24)
        self.pages: dict[str, Callable[[dict[str, str]], Answer]] = {
            "": lambda _: ("text/html; charset=utf-8", served_page().encode()),
            "page.js": lambda _: ("text/javascript; charset=utf-8", asset("page.js").encode()),
            "page.css": lambda _: ("text/css; charset=utf-8", asset("page.css").encode()),
            "niivue.js": lambda _: ("text/javascript; charset=utf-8", self._niivue.read_bytes()),
            "cases": lambda _: _json(self._cases),
            "case": self._case,
            "volume": self._volume,
            "values": self._values,
            "dice": self._dice,
        }
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"port {port} of {HOST}") from error

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser that really asks this machine calls it."""
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def _case(self, query: dict[str, str]) -> Answer:
        with self._lock:
            case = self._opened(query)
            return _json(case_payload(case, landmarks(case)))

    def _volume(self, query: dict[str, str]) -> Answer:
        with self._lock:
            case = self._opened(query)
            layer = case.layer(query.get("layer", ""))
            if layer is None:
                raise _NotFound
            return "application/octet-stream", volume_bytes(case, layer)

    def _values(self, query: dict[str, str]) -> Answer:
        with self._lock:
            case = self._opened(query)
            return _json(values_at(case.layers, _voxel(query.get("at", ""), case)))

    def _dice(self, query: dict[str, str]) -> Answer:
        value = self._folder.dice(self._known(query))
        return _json({"dice": None if math.isnan(value) else value})

    def _known(self, query: dict[str, str]) -> str:
        name = query.get("case", "")
        if name not in self._names:
            raise _NotFound
        return name

    def _opened(self, query: dict[str, str]) -> ShownCase:
        name = self._known(query)
        if name not in self._open:
            self._open[name] = self._folder.open(name)
        self._open.move_to_end(name)
        while len(self._open) > _KEPT_CASES:
            self._open.popitem(last=False)
        return self._open[name]


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    server_version, sys_version = "fastcal", ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing for each request."""

    def _answer(self, *, body: bool) -> None:
        status, (media, content) = self._found()
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _found(self) -> tuple[HTTPStatus, Answer]:
        # A name that leads here by DNS rebinding stands in Host, and another site in Origin.
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.hosts or (
            origin is not None and origin.removeprefix("http://") not in self.server.hosts
        ):
            return HTTPStatus.FORBIDDEN, _json({"error": "the request came by another name"})
        path, _, asked = self.path.partition("?")
        root, _, rest = path.partition("/")
        token, slash, name = rest.partition("/")
        # Of bytes, as texts beyond ASCII cannot be compared so.
        if root or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return HTTPStatus.FORBIDDEN, _json({"error": "the address must hold the token"})
        page = self.server.pages.get(name) if slash else None
        try:
            if page is None:
                raise _NotFound
            query = parse_qs(asked, max_num_fields=3, errors="strict")
            return HTTPStatus.OK, page({key: values[-1] for key, values in query.items()})
        except _NotFound:
            return HTTPStatus.NOT_FOUND, _json({"error": "there is nothing of this name"})
        except DataError as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, _json({"error": str(error)})
        except (ValueError, ImportError) as error:
            return HTTPStatus.BAD_REQUEST, _json({"error": str(error)})
        except Exception as error:  # one answer says it; a traceback would end up in a terminal
            said = f"this is a bug; please report it ({type(error).__name__}: {words(error)})"
            return HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": said})


def _json(content: Any) -> Answer:
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    return "application/json; charset=utf-8", text.encode("utf-8", "surrogateescape")


def _voxel(text: str, case: ShownCase) -> Voxel:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise _NotFound from None
    if not all(0 <= i < n for i, n in zip((x, y, z), case.frame.turned_shape, strict=True)):
        raise _NotFound
    return x, y, z
