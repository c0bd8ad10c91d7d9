"""One HTTP POST, with errors that say whether trying again can help."""

from urllib.parse import urlsplit

import requests

from .errors import Permanent, Temporary, one_line

JSON = {"Content-Type": "application/json; charset=utf-8"}
TIMEOUT = 10  # seconds to connect, and for each piece of the answer
# The request itself is wrong, or there is no such address. Everything else can pass or be repaired.
WRONG = {400, 404, 405, 410, 413, 415, 422}
SAFE = ("https://", "http://127.0.0.1:", "http://localhost:", "http://[::1]:")


def is_safe(url: str) -> bool:
    """Whether what is posted there does not travel in clear: https, or within this machine."""
    return url.startswith(SAFE)


def post(url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    """The answer when its status is 2xx; else Permanent or Temporary. No redirect is followed:
    it could lead the finding, and the token, elsewhere. Errors name the host, since a webhook's
    path is often its secret."""
    host = urlsplit(url).hostname
    try:
        answer = requests.post(
            url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        )
    except requests.RequestException as error:
        raise Temporary(f"{host}: {type(error).__name__}") from None
    if not 200 <= answer.status_code < 300:
        kind = Permanent if answer.status_code in WRONG else Temporary
        raise kind(f"{host}: HTTP {answer.status_code} {one_line(answer.text, 100)}")
    return answer


def said(answer: requests.Response) -> dict:
    """The JSON object that was answered, {} when it is something else. Some services refuse with
    status 200."""
    try:
        value = answer.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
