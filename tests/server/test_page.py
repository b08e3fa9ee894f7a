"""The page's files: their headers, and that they point nowhere else. What it does in a browser: tools/check_page.py."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import albireo.server
from albireo.server.endpoints.page import ASSETS

FILES = Path(albireo.server.__file__).parent / "page"


class Elements(HTMLParser):
    """Every element: its tag and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_every_file_is_served_and_nothing_else() -> None:
    assert {file.name for file in FILES.iterdir()} == set(ASSETS.values())


@pytest.mark.parametrize("path", ASSETS)
def test_headers(server: Any, path: str) -> None:
    answer = server.http.get(path)
    assert answer.status_code == 200 and answer.content == (FILES / ASSETS[path]).read_bytes()
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"] == f"{kinds[Path(ASSETS[path]).suffix]}; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'" and policy["media-src"] == "blob:"
    assert not any(word in answer.headers["content-security-policy"] for word in ("unsafe", "*", "data:", "http"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = server.http.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    # programs ask the model there, by POST
    assert server.http.post(path).status_code == (400 if path == "/" else 405)


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs_inline() -> None:
    elements = Elements((FILES / "index.html").read_text()).found
    for tag, attributes in elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            target = attributes.get(name)
            # relative, since a proxy may put a path before them
            assert target is None or f"/{target}" in ASSETS or target.startswith("#"), target
        assert tag != "style" and (tag != "script" or attributes.get("type") == "module")
    for path in ASSETS.values():
        text = (FILES / path).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import|\burl\(", text), path


def test_text_of_models_is_never_made_into_elements() -> None:
    for file in FILES.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|localStorage|cookie",
            file.read_text(),
        ), file.name


def test_modules_import_what_there_is() -> None:
    for file in FILES.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert f"/page/{name}" in ASSETS, name


def test_every_control_has_a_name() -> None:
    elements = Elements((FILES / "index.html").read_text()).found
    labelled = {attributes["for"] for tag, attributes in elements if tag == "label" and "for" in attributes}
    for tag, attributes in elements:
        if tag in ("canvas", "textarea", "dialog") or attributes.get("type") == "file":
            name = attributes.get("aria-labelledby") or attributes.get("aria-label")
            assert name or attributes.get("id") in labelled, attributes
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for file in FILES.glob("*.js"):
        used = re.findall(r'(?:getElementById|byId)\("([^"]+)"\)', file.read_text())
        assert set(used) <= set(ids), file.name
