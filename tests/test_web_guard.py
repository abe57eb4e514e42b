"""Who is let in, from where, and what nobody gets: tokens, other files, scripts in file names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pages import HERE, HTML, LISTEN, TOKEN, House
from starlette.testclient import TestClient

from colordaemon.errors import ConfigError
from colordaemon.service.job import State
from colordaemon.service.publisher import tag_of
from colordaemon.service.records import Records
from colordaemon.service.thumbnails import Thumbnails
from colordaemon.web.guard import COOKIE, Keys, token_of

PAGES = ("/", "/queue", "/done", "/failed?q=x", "/job/1", "/picture/1/0/after", "/events",
         "/status.json", "/metrics")  # fmt: skip
HOSTILE = (
    "<script>alert(1)</script>.png",
    '" onmouseover="alert(1)" x=".png',
    "<img src=x onerror=alert(1)>.png",
    "{{ 7 * 7 }}.png",
    "&lt;b&gt;.png",
    "line\nend\r\x1b[2J.png",
    "\u202egnp.exe",
    os.fsdecode(b"no text \xff\xfe.png"),
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# The token


@pytest.mark.parametrize("address", PAGES)
def test_without_the_token_nothing_is_shown(house: House, address: str) -> None:
    house.fail()
    stranger = house.client(known=False)
    for headers in ({}, HTML, {"Authorization": f"Bearer {TOKEN[:-1]}"},
                    {"Authorization": f"Basic {TOKEN}"}):  # fmt: skip
        answer = stranger.get(address, headers=headers)
        assert answer.status_code == 401
        assert "failed 0" not in answer.text and TOKEN not in answer.text
    stranger.cookies.set(COOKIE, TOKEN)  # the cookie is another word than the token
    assert stranger.get(address).status_code == 401
    assert stranger.get(f"{address.split('?')[0]}?token={TOKEN[:-1]}").status_code == 401


def test_without_the_token_nothing_is_commanded(house: House) -> None:
    house.fail()
    with house.daemon() as asked:
        for verb in ("pause", "retry"):
            answer = house.client(known=False).post(f"/do/{verb}", data={"all": "1"}, headers=HERE)
            assert answer.status_code == 401
    assert not asked


def test_a_link_with_the_token_leaves_a_cookie_and_no_token(house: House) -> None:
    client = house.client(known=False)
    answer = client.get(f"/?token={TOKEN}", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    assert client.get("/").status_code == 200


def test_the_form_for_the_token_leads_back_to_the_page_that_was_wanted(house: House) -> None:
    client = house.client(known=False)
    assert 'name="back" value="/failed"' in client.get("/failed", headers=HTML).text
    form = {"token": "wrong", "back": "/failed"}
    wrong = client.post("/login", data=form, headers=HTML | HERE)
    assert wrong.status_code == 401 and "not the token" in wrong.text
    right = client.post("/login", data=form | {"token": f" {TOKEN}\n"}, headers=HERE)
    assert (right.status_code, right.headers["location"]) == (303, "/failed")
    assert client.get("/failed").status_code == 200


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:x", ""]
)
def test_no_form_leads_to_another_page(house: House, back: str) -> None:
    data = {"token": TOKEN, "back": back}
    assert house.client().post("/login", data=data, headers=HERE).headers["location"] == "/"
    answer = house.client().post("/do/pause", data={"back": back}, headers=HERE)
    assert answer.headers["location"] == "/"


def test_programs_send_the_token_with_each_request(house: House) -> None:
    house.fill(State.DONE)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert house.client(known=False).get("/status.json", headers=headers).status_code == 200


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "web.token"
    token = token_of(file)
    assert file.stat().st_mode & 0o777 == 0o600 and len(token) >= 43
    assert token_of(file) == token
    assert Keys(token).cookie != Keys(token + "x").cookie
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="found mode 640, expected 600"):
        token_of(file)
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="found 5 letters"):
        token_of(file)


def test_no_link_leads_to_another_file_as_the_token(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x" * 50)
    (tmp_path / "other").chmod(0o600)
    (tmp_path / "web.token").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        token_of(tmp_path / "web.token")


# Other hosts and other pages


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", "", "a b"]
)
def test_a_foreign_host_is_refused(house: House, host: str) -> None:
    answer = house.client().get("/", headers={"Host": host})
    assert answer.status_code == 400 and "colordaemon" not in answer.text
    headers = {"Host": host, "Origin": f"http://{host}"}  # as a page would send after rebinding
    assert house.client().post("/do/pause", headers=headers | HERE).status_code == 400


@pytest.mark.parametrize("host", [LISTEN, "localhost:8765", "[::1]:8765", "LOCALHOST"])
def test_this_machine_is_no_foreign_host(house: House, host: str) -> None:
    assert house.client().get("/", headers={"Host": host}).status_code == 200


def test_the_settings_name_further_hosts(house: House) -> None:
    client = house.client(hosts=["films.example"])
    assert client.get("/", headers={"Host": "films.example"}).status_code == 200
    assert client.get("/", headers={"Host": "www.films.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{LISTEN}"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Origin": f"http://{LISTEN}"}, 303),
    ],
)
def test_a_post_from_another_page_is_refused_whoever_sends_it(
    house: House, headers: dict[str, str], status: int
) -> None:
    with house.daemon() as asked:
        assert house.client().post("/do/pause", headers=headers).status_code == status
    assert [request["verb"] for request in asked] == ["pause"] * (status == 303)
    # Nor can another page log a browser in with a token of its own.
    answer = house.client(known=False).post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.status_code == status


def test_every_answer_tells_the_browser_what_not_to_do(house: House) -> None:
    house.fail()
    client = house.client()
    answers = [
        client.get("/"), client.get("/nothing"), client.get("/static/page.js"),
        house.client(known=False).get("/"), client.post("/do/pause"),
        client.get("/", headers={"Host": "evil.example"}),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 404, 200, 401, 403, 400]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_form_that_is_too_large_or_none_is_refused(house: House) -> None:
    client = house.client()
    assert client.post("/login", content=b"token=" + b"x" * 70_000, headers=HERE).status_code == 413
    assert client.post("/login", content=b"token=\xff", headers=HERE).status_code == 400
    assert (
        client.post("/login", content=b"&".join([b"a=1"] * 2000), headers=HERE).status_code == 400
    )


# Files


def with_picture(house: House) -> TestClient:
    house.fill(State.DONE)
    (house.folders.state / "web.token").write_text(TOKEN)
    with Records(house.folders.journal) as records:
        tag = tag_of(records.token, 1)
    Thumbnails(house.folders.thumbnails).write(tag, [(b"gray", b"color")])
    return house.client()


def test_a_picture_is_served_before_and_after(house: House) -> None:
    client = with_picture(house)
    assert client.get("/picture/1/0/before").content == b"gray"
    answer = client.get("/picture/1/0/after")
    assert answer.content == b"color" and answer.headers["content-type"] == "image/jpeg"
    assert "/picture/1/0/after" in client.get("/done").text
    assert "/picture/1/0/before" in client.get("/job/1").text


@pytest.mark.parametrize(
    "address",
    [
        "/picture/../../web.token",
        "/picture/..%2f..%2fweb.token",
        "/picture/1/0/..%2f..%2fweb.token",
        "/picture/1/0/%2e%2e%2f%2e%2e%2fweb.token",
        "/picture/1/../../../web.token",
        "/picture/1/0/before/../../web.token",
        "/picture/1/0/..\\..\\web.token",
        "/picture/1/0/before%00",
        "/picture/-1/0/after",
        "/picture/1/1/after",
        "/picture/2/0/after",
        "/picture/99999999999999999999/0/after",
        f"/picture/1/{'9' * 5000}/after",
        "/static/../guard.py",
        "/static/..%2fguard.py",
        "/static/%2e%2e/guard.py",
        "/static//etc/passwd",
    ],
)
def test_no_address_leads_to_another_file(house: House, address: str) -> None:
    client = with_picture(house)
    target = client.base_url.copy_with(raw_path=address.encode())
    answer = client.get(target)
    assert answer.status_code == 404
    assert TOKEN not in answer.text and "Keys" not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_and_do_nothing(house: House, name: str) -> None:
    for state in (State.QUEUED, State.FAILED, State.DONE, State.RUNNING):
        pattern = name.replace("{", "{{").replace("}", "}}")
        house.fill(state, source=house.folders.inbox / state / pattern, reason=ascii(name))
    client = house.client()
    pages = [client.get(page).text for page in ("/", "/queue", "/failed", "/done", "/job/1")]
    for text in [*pages, client.get("/status.json").json()["running"][0]["name"]]:
        assert not {"\u202e", "\x1b", "\r", "\udcff"} & {*text}
    for text in pages:
        for alive in ("<script>alert", "<img src=x", 'onmouseover="', "49.png", "&lt;b&gt;.png"):
            assert alive not in text


def test_the_letters_of_a_hostile_name_are_all_there(house: House) -> None:
    for name in ("<i>&lt;.png", "{{{{ 7 * 7 }}}}.png"):
        house.fill(State.QUEUED, source=house.folders.inbox / name)
    text = house.client().get("/queue").text
    assert "&lt;i&gt;&amp;lt;.png" in text and "{{ 7 * 7 }}.png" in text
