"""The pages and what they answer to; everything is rendered here, and works without a script."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

import anyio
import jinja2
from anyio import to_thread
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from colordaemon import __version__
from colordaemon.inbox.folders import Folders
from colordaemon.logs import counted
from colordaemon.service.control import BadRequest, NoAnswer, ask
from colordaemon.service.job import Job, State
from colordaemon.service.publisher import tag_of
from colordaemon.service.records import Records
from colordaemon.service.status import Reply
from colordaemon.service.thumbnails import SIDES, Thumbnails
from colordaemon.web import words
from colordaemon.web.guard import Door, Guard, Keys, with_cookie
from colordaemon.web.look import ANSWER_SECONDS, LOOK_SECONDS, NOTHING, TROUBLES, Look, Looks
from colordaemon.web.metrics import registry_of, summary_of

HERE = Path(__file__).parent
ON_A_PAGE = 50  # jobs
LISTS = {  # the pages that list jobs, in the order of the navigation
    "queue": State.QUEUED,
    "done": State.DONE,
    "failed": State.FAILED,
    "skipped": State.SKIPPED,
    "cancelled": State.CANCELLED,
}
GIVEN_UP = (State.FAILED, State.SKIPPED, State.CANCELLED)
VERBS = ("pause", "resume", "retry", "cancel", "first")
_SAID = "colordaemon-said"  # a cookie: what a command has answered, until the next page
_ALIVE_SECONDS = 15.0  # after which a stream without news says so, or proxies close it
_OPEN_TO_ALL = r"/login|/static/[\w.-]+"
_LONGEST_SEARCH = 200
_LARGEST_FORM, _MOST_FIELDS = 1 << 16, 1000  # bytes; a list has 50 jobs
_DIGITS = 8  # of the number of a page
_JOB_DIGITS = 19  # of the number of a job, which SQLite keeps in 63 bits


@dataclass(frozen=True)
class Listing:
    """One page of a list. found: how many jobs there are on all pages."""

    name: str
    jobs: tuple[Job, ...] = ()
    found: int = 0
    number: int = 1
    search: str = ""
    trouble: str = ""

    @property
    def pages(self) -> int:
        return max(1, -(-self.found // ON_A_PAGE))

    def address(self, number: int) -> str:
        """Of another page of it."""
        query = {"q": self.search} if self.search else {}
        return f"/{self.name}?{urlencode(query | {'page': number}, errors='replace')}"


class Page:
    """Answers every request. is_over: whether the server is about to end."""

    def __init__(
        self,
        all_folders: tuple[Folders, ...],
        keys: Keys,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._all_folders, self._folders = all_folders, all_folders[0]
        self._keys, self._is_over = keys, is_over
        self._looks, self._thumbnails = Looks(all_folders), Thumbnails(self._folders.thumbnails)
        self._templates = _templates()
        self._told = NOTHING, ""

    def routes(self) -> list[Route | Mount]:
        return [
            Route("/", self.overview),
            *(Route(f"/{name}", self.listing) for name in LISTS),
            Route("/job/{number}", self.job),
            Route("/picture/{number}/{which}/{side}", self.picture),
            Route("/events", self.events),
            Route("/status.json", self.summary),
            Route("/metrics", self.metrics),
            Route("/do/{verb}", self.command, methods=["POST"]),
            Route("/login", self.login, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    # Pages

    async def overview(self, request: Request) -> Response:
        look = await self._looks.latest()
        more = await to_thread.run_sync(self._overview)
        return self._page(request, "overview.html", look, here="", **more)

    def _overview(self) -> dict[str, Any]:
        try:
            with Records(self._folders.journal) as records:
                latest = {
                    "next": records.listed(State.QUEUED, limit=5),
                    "done": records.listed(State.DONE, limit=8),
                    "failed": records.listed(State.FAILED, limit=5),
                }
                return latest | {"pictured": self._pictured(records, latest["done"])}
        except TROUBLES:
            return {"next": (), "done": (), "failed": (), "pictured": {}}

    async def listing(self, request: Request) -> Response:
        look = await self._looks.latest()
        name = request.url.path.strip("/")
        wanted = request.query_params.get("page", "")
        number = int(wanted) if wanted.isdecimal() and len(wanted) < _DIGITS else 1
        search = request.query_params.get("q", "").strip()[:_LONGEST_SEARCH]
        listing, pictured, codes = await to_thread.run_sync(self._listing, name, number, search)
        return self._page(
            request, "list.html", look, here=name, listing=listing, pictured=pictured, codes=codes
        )

    def _listing(self, name: str, number: int, search: str) -> tuple[Any, ...]:
        state = LISTS[name]
        try:
            with Records(self._folders.journal) as records:
                found = records.found(state, search)
                listing = Listing(name, found=found, search=search)
                number = max(1, min(number, listing.pages))
                offset = (number - 1) * ON_A_PAGE
                jobs = records.listed(state, search, limit=ON_A_PAGE, offset=offset)
                pictured = self._pictured(records, jobs)
                codes = records.codes(state) if state in GIVEN_UP else {}
        except TROUBLES as error:
            return Listing(name, search=search, trouble=str(error)), {}, {}
        return Listing(name, tuple(jobs), found, number, search), pictured, codes

    async def job(self, request: Request) -> Response:
        look = await self._looks.latest()
        number = _number(request.path_params["number"])
        found = await to_thread.run_sync(self._job, number)
        if found is None:
            return self._page(request, "missing.html", look, status=404, here=None)
        job, pictures = found
        return self._page(request, "job.html", look, here=None, job=job, pictures=pictures,
                          inventory=json.loads(job.inventory))  # fmt: skip

    def _job(self, number: int | None) -> tuple[Job, list[int]] | None:
        if number is None:
            return None
        try:
            with Records(self._folders.journal) as records:
                job = records.job(number)
                return job, self._pictured(records, [job]).get(number, [])
        except (KeyError, *TROUBLES):
            return None

    async def picture(self, request: Request) -> Response:
        """A thumbnail. Its path is made of two numbers and of one of two words."""
        number, which = (_number(request.path_params[key]) for key in ("number", "which"))
        side, path = request.path_params["side"], None
        if side in SIDES and number is not None and which is not None:
            path = await to_thread.run_sync(self._picture, number, which, side)
        if path is None:
            return PlainTextResponse("there is no such picture\n", 404)
        headers = {"Cache-Control": "private, max-age=60"}
        return FileResponse(path, media_type="image/jpeg", headers=headers)

    def _picture(self, number: int, which: int, side: str) -> Path | None:
        try:
            with Records(self._folders.journal) as records:
                tag = tag_of(records.token, number)
        except TROUBLES:
            return None
        return (
            self._thumbnails.path(tag, which, side) if which in self._thumbnails.of(tag) else None
        )

    def _pictured(self, records: Records, jobs: Sequence[Job]) -> dict[int, list[int]]:
        """The numbers of the pictures of those that are done."""
        done = [job.id for job in jobs if job.state is State.DONE]
        return {number: self._thumbnails.of(tag_of(records.token, number)) for number in done}

    # What changes by itself

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._news(), media_type="text/event-stream")

    async def _news(self) -> AsyncIterator[str]:
        """Parts of the page, whenever they have changed."""
        sent, silent = "", 0.0
        while not self._is_over():
            look = await self._looks.latest()
            news = self._news_of(look)
            if news != sent:
                yield f"data: {news}\n\n"
                sent, silent = news, 0.0
            elif silent >= _ALIVE_SECONDS:
                yield ": alive\n\n"
                silent = 0.0
            await anyio.sleep(LOOK_SECONDS)
            silent += LOOK_SECONDS

    async def summary(self, request: Request) -> Response:
        return JSONResponse(summary_of(await self._looks.latest()))

    async def metrics(self, request: Request) -> Response:
        registry = registry_of(await self._looks.latest())
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def _news_of(self, look: Look) -> str:
        """As JSON; the same for everybody, so it is made once."""
        if self._told[0] is not look:
            news = {"parts": self._parts(look), "revision": look.revision}
            self._told = look, json.dumps(news)
        return self._told[1]

    def _parts(self, look: Look) -> dict[str, str]:
        """What the elements of these ids hold, on whichever page they are."""
        parts = {
            name: self._templates.get_template(f"parts/{name}.html").render(look=look)
            for name in ("bar", "now", "where")
        }
        return parts | {
            f"count-{name}": str(look.counts.get(state, 0)) for name, state in LISTS.items()
        }

    # Commands

    async def command(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb not in VERBS:
            return PlainTextResponse("there is no such command\n", 404)
        form = await _form(request)
        jobs = form.get("job", [])
        if not all(_number(job) is not None for job in jobs):
            return PlainTextResponse("expected the number of a job\n", 400)
        if not jobs and verb not in ("pause", "resume") and "all" not in form:
            return PlainTextResponse("expected a job\n", 400)
        said = await to_thread.run_sync(self._command, verb, [int(job) for job in jobs])
        self._looks.forget()
        response = RedirectResponse(_back(form), 303)
        response.set_cookie(_SAID, quote(said), max_age=10, httponly=True, samesite="strict")
        return response

    def _command(self, verb: str, jobs: list[int]) -> str:
        """Tell the daemon; returns what to tell the operator. The journal is never written here."""
        try:
            reply = ask(self._folders.control, _request(verb, jobs), ANSWER_SECONDS)
        except (BadRequest, NoAnswer) as error:
            return str(error)
        if reply is None:
            return "The daemon is not running, so nothing was done."
        return _answer(verb, reply)

    async def login(self, request: Request) -> Response:
        form = await _form(request)
        if not self._keys.fits(form.get("token", [""])[0].strip()):
            return self.ask_for_token(request, wrong=True)
        return with_cookie(RedirectResponse(_back(form), 303), self._keys)

    def ask_for_token(self, request: Request, *, wrong: bool = False) -> Response:
        """The answer to who has neither token nor cookie."""
        if "text/html" not in request.headers.get("accept", ""):
            headers = {"WWW-Authenticate": "Bearer"}
            return PlainTextResponse("expected the token of this page\n", 401, headers=headers)
        back = request.url.path if request.method == "GET" else "/"
        file = self._folders.state / "web.token"
        page = self._templates.get_template("login.html")
        return HTMLResponse(page.render(file=file, wrong=wrong, back=back), 401)

    def _page(
        self, request: Request, template: str, look: Look, *, status: int = 200, **values: Any
    ) -> Response:
        said = unquote(request.cookies.get(_SAID, ""), errors="replace")[:500]
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        html = self._templates.get_template(template).render(
            look=look, said=said, back=back, lists=LISTS, **values
        )
        response = HTMLResponse(html, status)
        if said:
            response.delete_cookie(_SAID, httponly=True, samesite="strict")
        return response


def _number(text: str) -> int | None:
    """That of a job, from an address; None if it cannot be one."""
    return int(text) if text.isdecimal() and len(text) < _JOB_DIGITS else None


def _request(verb: str, jobs: list[int]) -> Reply:
    return {"verb": verb, "jobs": jobs} if verb not in ("pause", "resume") else {"verb": verb}


def _answer(verb: str, reply: Reply) -> str:
    if verb in ("pause", "resume"):
        return "Paused." if reply["paused"] else "Work goes on."
    what = {"retry": "queued again", "cancel": "cancelled", "first": "moved to the front"}[verb]
    said = f"{counted(reply['count'], 'file')} {what}."
    return f"{said} {reply['why']}" if "why" in reply else said


async def _form(request: Request) -> dict[str, list[str]]:
    """The values of a form, by name."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:  # not UTF-8 either
        raise HTTPException(400, "expected a form") from None


def _back(form: dict[str, list[str]]) -> str:
    """The address of this page that a form was sent from; the overview in place of any other."""
    address = form.get("back", ["/"])[0]
    return address if re.fullmatch(r"/(?!/)[\w/]*(\?[^\\\s]*)?", address, re.ASCII) else "/"


def _templates() -> jinja2.Environment:
    """Everything that is not ours is escaped."""
    loader = jinja2.FileSystemLoader(HERE / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    filters = (words.advice, words.size_of, words.duration_of, words.moment, words.iso,
               words.name_of, words.shown)  # fmt: skip
    environment.filters |= {each.__name__: each for each in filters}
    environment.globals |= {"version": __version__}
    return environment


def make_app(page: Page, keys: Keys, hosts: list[str]) -> Starlette:
    """hosts: names under which it answers."""
    return Starlette(
        routes=page.routes(),
        middleware=[
            Middleware(Guard),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(Door, keys=keys, ask=page.ask_for_token, open_to_all=_OPEN_TO_ALL),
        ],
    )
