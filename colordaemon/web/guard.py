"""Who may see the page and command the daemon: whoever knows the token, from this page itself.

The page listens to this machine alone, but every program on it, and every web page that a browser
on it has open, can send requests there. So

* a request for a foreign host is refused: a name that an attacker has led to 127.0.0.1 (DNS
  rebinding) is one;
* nothing is shown without the token, which lies in a file that only its owner can read. A browser
  has it once and gets a cookie in its place; programs send it with each request;
* a POST from another page is refused, whatever cookie comes with it;
* the browser runs no script but ours, and puts the page into no frame (the policy of content).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colordaemon.errors import ConfigError

COOKIE = "colordaemon"
COOKIE_SECONDS = 30 * 86400
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
_SHORTEST = 32  # letters of a token; ours have 43
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer, with which browsers that send no Sec-Fetch-Site send no Origin either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def token_of(path: Path) -> str:
    """The token in a file, which is made if there is none. Raises ConfigError for one that others
    can read, and OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(f"{secrets.token_urlsafe(32)}\n")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123
        mode = os.fstat(file.fileno()).st_mode & 0o777
        token = file.read(1000).strip()
    if mode & 0o077:
        raise ConfigError(f"{path}: found mode {mode:03o}, expected 600; others may know the token")
    if len(token) < _SHORTEST or not token.isascii():
        raise ConfigError(
            f"{path}: found {len(token)} letters, expected {_SHORTEST} or more of ASCII; remove the"
            " file, and the next start makes one"
        )
    return token.decode()


class Keys:
    """Says who is let in."""

    def __init__(self, token: str) -> None:
        self._token = token
        # Not the token itself: browsers send a cookie to every port of a machine.
        self.cookie = hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()

    def fits(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.encode())

    def lets_in(self, connection: HTTPConnection) -> bool:
        """Whether a request has the cookie, or the token (Authorization: Bearer TOKEN)."""
        cookie = connection.cookies.get(COOKIE, "")
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        has_token = kind.lower() == "bearer" and self.fits(token.strip())
        return has_token or secrets.compare_digest(cookie.encode(), self.cookie.encode())


class Guard:
    """Refuses a POST from another page, and adds what the browser has to heed to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD") and not is_from_here(headers):
            refusal = PlainTextResponse("this request comes from another page\n", 403)
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def is_from_here(headers: Headers) -> bool:
    """Whether a request was made by our own page, or by nobody's."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site in ("same-origin", "none")
    _, _, origin = headers.get("origin", "").partition("://")
    return bool(origin) and origin == headers.get("host")


def hosts_of(listen: str, more: Sequence[str]) -> list[str]:
    """The names under which the page answers. listen: its address and port."""
    return [*dict.fromkeys((*LOCAL_HOSTS, listen.rpartition(":")[0], *more))]


class Door:
    """Lets in who has the token or the cookie. ask: the answer to all others.

    /?token=TOKEN, as `colordaemon web` prints it, is exchanged for the cookie at once, so that the
    token stays out of the browser's address line.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, ask: Callable[[Request], Response], open_to_all: str
    ) -> None:
        self._app, self._keys, self._ask, self._open = app, keys, ask, open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or re.fullmatch(self._open, scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        token = request.query_params.get("token")
        if scope["method"] == "GET" and token is not None and self._keys.fits(token):
            answer: ASGIApp = with_cookie(RedirectResponse(scope["path"], 303), self._keys)
        else:
            answer = self._app if self._keys.lets_in(request) else self._ask(request)
        await answer(scope, receive, send)


def with_cookie(response: Response, keys: Keys) -> Response:
    response.set_cookie(
        COOKIE, keys.cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="strict"
    )
    return response
