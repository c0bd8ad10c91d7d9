"""A call to moto's application without a socket: for clients in the server's own process.

What a request is on the wire and back (http.server's parsing, a thread for each call, urllib3) is
half of the time of a small call. Here the request that botocore has signed is given to the same
WSGI application, in the caller's thread. Time-outs of the client do not apply.
"""

import io
import sys
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY
from werkzeug.test import run_wsgi_app


class _Body:
    """The part of urllib3's response that AWSResponse reads."""

    def __init__(self, content: bytes):
        self._content = io.BytesIO(content)

    def stream(self, *args, **kwargs) -> Iterator[bytes]:
        yield self._content.read()

    def read(self, amount: int | None = None) -> bytes:
        return self._content.read(amount)


def answer(application, request: AWSPreparedRequest) -> AWSResponse:
    """What a server of `application` would answer to a request of botocore."""
    body = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, str):
        body = body.encode()
    url = urlsplit(request.url)
    target = url._replace(scheme="", netloc="").geturl()
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1") or "/",
        "QUERY_STRING": url.query,
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": str(url.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": url.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        PRESERVED_HEADER_NAMES_ENVIRON_KEY: {},
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = value.decode() if isinstance(value, bytes) else str(value)
    environ["CONTENT_LENGTH"] = str(len(body))
    content, status, headers = run_wsgi_app(application, environ, buffered=True)
    return AWSResponse(request.url, int(status.split()[0]), dict(headers), _Body(b"".join(content)))
