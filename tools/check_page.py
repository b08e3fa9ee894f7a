"""Drive the page at / in headless Chromium, as a person would; screenshots on request.

Run: make page, or python tools/check_page.py [--shots DIRECTORY]. Says why, and ends with 0, where playwright (PyPI) or
chromium (Debian) is missing. The page is asked for from loopback; a request to anywhere else fails the check.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from albireo.api.sources.locate import BUNDLED  # noqa: E402
from server_process import Server  # noqa: E402

#: How many of the map's pixels have a colour, not a shade of grey: blocks that somebody holds, or held.
COLOURED = """() => {
  const map = document.getElementById("blocks");
  const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
  let num = 0;
  for (let i = 0; i < data.length; i += 4) {
    const parts = [data[i], data[i + 1], data[i + 2]];
    if (data[i + 3] && Math.max(...parts) - Math.min(...parts) > 60) num++;
  }
  return num;
}"""


#: Files, of the same bytes, as the clipboard or somebody's hand gives them.
GIVE = """([data, names, kind, type = "image/png"]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const given = new DataTransfer(), how = { bubbles: true, cancelable: true };
  for (const name of names) given.items.add(new File([bytes], name, { type }));
  const prompt = document.getElementById("prompt"), map = document.getElementById("blocks");
  if (kind === "paste") prompt.dispatchEvent(new ClipboardEvent(kind, { clipboardData: given, ...how }));
  else for (const each of ["dragover", kind]) map.dispatchEvent(new DragEvent(each, { dataTransfer: given, ...how }));
}"""

PICTURE = '() => document.getElementById("blocks").toDataURL()'


class Watched:
    """A page, and what it did that it should not. expects: parts of console messages that are as they should be."""

    def __init__(self, page: Any, *expects: str) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", lambda message: self._said(message, expects))
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, message: Any, expects: tuple[str, ...]) -> None:
        if message.type == "error" and not any(part in message.text for part in expects):
            self.faults.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        if urlsplit(url.removeprefix("blob:")).hostname != "127.0.0.1":
            self.faults.append(f"asked for {url}")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        # Not as a text of code: the page's policy forbids eval, as it should.
        self.page.wait_for_function(f"() => {condition}", timeout=60_000)


@contextmanager
def opened(browser: Any, url: str, *expects: str, **options: Any) -> Iterator[Watched]:
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})
    watched = Watched(context.new_page(), *expects)
    watched.page.goto(url)
    yield watched
    context.close()
    assert not watched.faults, watched.faults


def text(watched: Watched, selector: str) -> str:
    return str(watched.page.text_content(selector))


def chat_streams(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as watched:
        page = watched.page
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        before = page.evaluate(PICTURE)
        page.check("input[value=chat]", force=True)
        page.fill("#prompt", "Tell me about a dog.")
        page.click("#send")
        watched.until('document.querySelectorAll(".turn.answer p")[0]?.textContent.length > 40')
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        timing = text(watched, "#timing")
        assert "first token" in timing and "tokens/s" in timing and "out" in timing, timing
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        watched.until('document.getElementById("block-said").textContent.includes("kept")')
        # Pale in the colour of a request that was seen to fill them, grey where its answer came between two looks.
        assert page.evaluate(PICTURE) != before, "blocks that are kept are seen"
        page.fill("#prompt", "<img src=x onerror=alert(1)> '; $(id)")
        page.click("#as-curl")
        assert "'\\''; $(id)" in text(watched, "#snippet-text")
        page.click("#as-python")
        assert "client.chat.completions.create(" in text(watched, "#snippet-text")
        page.press("#prompt", "Enter")
        watched.until('document.querySelectorAll(".turn.user").length === 2')
        assert page.evaluate('document.querySelectorAll("#log img").length') == 0, "text is text"


def completion_stops(browser: Any, server: Server) -> None:
    with opened(browser, server.url, "400") as watched:
        page = watched.page
        page.check("input[value=completion]", force=True)
        page.click("#parameters summary")
        page.fill("input[name=max_tokens]", "450")
        page.fill("input[name=seed]", "7")
        num_stopped = 0
        for _ in range(20):  # the bundled model may be through before the button is reached
            page.fill("#prompt", "Once upon a time, a little fox")
            page.click("#send")
            watched.until('document.querySelector(".turn:last-child .made")?.textContent.length > 0')
            if page.is_enabled("#stop"):
                page.evaluate('document.getElementById("stop").click()')
            watched.until('!document.getElementById("send").disabled')
            num_stopped += text(watched, "#timing").startswith("stopped")
            if num_stopped:
                break
        assert num_stopped, "an answer was stopped"
        page.fill("input[name=temperature]", "1.5")
        page.fill("input[name=max_tokens]", "100000")
        page.fill("#prompt", "Once")
        page.click("#send")
        watched.until('document.querySelector(".turn.error") !== null')


def blocks_are_coloured(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as watched:
        page = watched.page
        page.click("#load")
        watched.until('document.querySelectorAll("#requests li.running").length >= 4')
        watched.until('/ [1-9][0-9]* of them shared/.test(document.getElementById("blocks").ariaLabel)')
        assert page.evaluate(COLOURED) > 500
        page.focus("#blocks")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        watched.until('document.getElementById("block-said").textContent.startsWith("Block 2: ")')
        page.keyboard.press("Escape")
        page.hover("#requests li button")
        page.mouse.move(5, 5)
        page.click("#load")
        watched.until('document.getElementById("load").textContent.startsWith("Start")')
        watched.until('document.getElementById("state").textContent === "ready, idle"')


def a_phone_has_no_sideways_scroll(browser: Any, server: Server) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
    with opened(browser, server.url, **phone, reduced_motion="reduce") as watched:
        watched.page.click("#load")
        watched.until('document.querySelectorAll("#requests li.running").length >= 2')
        watched.page.click("#parameters summary")
        watched.page.click("#as-python")
        width = watched.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{width} pixels wide"
        watched.page.click("#load")


def controls_have_names(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as watched:
        nameless = watched.page.evaluate(
            """() => [...document.querySelectorAll("button, input, textarea, canvas, select")].filter((each) => !(
              each.ariaLabel || each.getAttribute("aria-labelledby") || each.labels?.length || each.textContent.trim()
            )).map((each) => each.outerHTML)"""
        )
        assert nameless == [], nameless
        reached = []
        for _ in range(14):
            watched.page.keyboard.press("Tab")
            reached.append(watched.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"prompt", "send", "load", "log"} <= set(reached), reached


def a_key_is_asked_for(browser: Any, server: Server) -> None:
    with opened(browser, server.url, "401") as watched:
        page = watched.page
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key-input", "wrong")
        page.press("#key-input", "Enter")
        watched.until('document.getElementById("key-said").textContent.includes("does not take this key")')
        page.fill("#key-input", "sesame")
        page.press("#key-input", "Enter")
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        page.fill("#prompt", "Hello")
        page.check("input[value=chat]", force=True)
        page.click("#as-curl")
        assert "sesame" not in text(watched, "#snippet-text") and "$ALBIREO_API_KEY" in text(watched, "#snippet-text")
        page.click("#send")
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        page.reload()
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        assert page.evaluate("localStorage.length") == 0 and page.evaluate("document.cookie") == ""


def pictures_are_shown_to_the_model(browser: Any, server: Server) -> None:
    with opened(browser, server.url, "400") as watched:
        page = watched.page
        page.wait_for_selector("#picture-open:not([hidden])")
        for kind, names in (("paste", ["any.png"]), ("drop", ["b.png", "c.png"])):
            page.evaluate(GIVE, [png(64, 48), names, kind])
            watched.until(f'document.querySelectorAll("#tray li").length === {1 if kind == "paste" else 3}')
        labels = page.evaluate('[...document.querySelectorAll("#tray button")].map((each) => each.ariaLabel)')
        assert labels == ["Remove pasted-1.png", "Remove b.png", "Remove c.png"], labels
        page.click("#send")
        watched.until('document.querySelector(".turn.error p")?.textContent.includes("limit_mm_per_prompt allows 2")')
        page.click("#tray li:nth-child(3) button")
        assert page.evaluate("document.activeElement.ariaLabel") == "Remove b.png", "the keyboard goes on from there"
        page.keyboard.press("Enter")
        large = {"name": "large one.png", "mimeType": "image/png", "buffer": base64.b64decode(png(3000, 1500))}
        page.set_input_files("#picture-file", [large])
        watched.until('document.getElementById("tray-said").textContent.includes("2048 × 1024")')
        page.set_input_files("#picture-file", [{"name": "a.png", "mimeType": "image/png", "buffer": b"none"}])
        watched.until('document.getElementById("tray-said").textContent.includes("a.png is no picture")')
        page.fill("#prompt", "is $(id) `id` it's?")
        page.click("#as-curl")
        code = text(watched, "#snippet-text")
        assert "$(base64 < 'large one.png' |" in code and "is \\$(id) \\`id\\` it's?" in code, code
        page.click("#as-python")
        assert 'data_url("large one.png", "image/png")' in text(watched, "#snippet-text")
        page.click("#send")
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        watched.until(
            '[...document.querySelectorAll("#requests li")].some((row) => row.textContent.includes("2 images"))'
        )
        named = page.evaluate(
            '[...document.querySelectorAll(".turn:nth-last-child(2) canvas")].map((e) => e.ariaLabel)'
        )
        assert named == ["Picture: pasted-1.png", "Picture: large one.png"], named
        assert page.is_hidden("#tray")
        page.check("input[value=completion]", force=True)
        assert page.is_hidden("#picture-open")
        page.evaluate(GIVE, [png(64, 48), ["b.png"], "drop"])
        watched.until('document.getElementById("timing").textContent === "pictures are for chats"')


def sounds_are_played_to_the_model(browser: Any, server: Server) -> None:
    with opened(browser, server.url, "400") as watched:
        page = watched.page
        page.wait_for_selector("#sound-open:not([hidden])")
        assert page.is_hidden("#picture-open"), "this model hears, and sees none"
        page.evaluate(GIVE, [png(64, 48), ["b.png"], "drop"])
        watched.until('document.getElementById("timing").textContent === "chats with this model take no pictures"')
        page.evaluate(GIVE, [wav(1.5), ["a.wav", "b.wav", "c.wav"], "drop", "audio/wav"])
        watched.until('document.querySelectorAll("#tray li").length === 3')
        # a system may know no kind of a file
        page.evaluate(GIVE, [wav(0.5), ["d.WAV"], "paste", ""])
        watched.until(
            '[...document.querySelectorAll("#tray .soft")].every((each) => each.textContent.includes("s · "))'
        )
        told = page.evaluate('[...document.querySelectorAll("#tray .label")].map((each) => each.innerText)')
        assert told[0] == "a.wav\n1.50 s · 46.9 KiB" and told[3] == "d.WAV\n500 ms · 15.7 KiB", told
        labels = page.evaluate('[...document.querySelectorAll("#tray button")].map((each) => each.ariaLabel)')
        assert labels == ["Remove a.wav", "Remove b.wav", "Remove c.wav", "Remove d.WAV"], labels
        page.click("#send")
        watched.until('document.querySelector(".turn.error p")?.textContent.includes("limit_mm_per_prompt allows 3")')
        page.click("#tray li:nth-child(4) button")
        for left in ("Remove c.wav", "Remove b.wav"):
            assert page.evaluate("document.activeElement.ariaLabel") == left, "the keyboard goes on from there"
            page.keyboard.press("Enter")
        for name, size, words in (
            ("e.mp3", 8 << 20, "e.mp3 has 8.0 MiB, and at most 7.0 MiB"),
            ("e.txt", 9, "e.txt is no sound"),
        ):
            page.set_input_files("#sound-file", [{"name": name, "mimeType": "", "buffer": bytes(size)}])
            watched.until(f'document.getElementById("tray-said").textContent.includes("{words}")')
        # what the browser reads and the server does not: its name says so, what it is made into is one
        page.evaluate(GIVE, [wav(1), ["f.m4a"], "drop", "audio/mp4"])
        watched.until('document.getElementById("tray-said").textContent.includes("f.m4a is sent as a WAV of 16,000")')
        page.fill("#prompt", "What is it?")
        page.click("#send")
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        watched.until(
            '[...document.querySelectorAll("#requests li")].some((row) => row.textContent.includes("2 sounds"))'
        )
        assert page.is_hidden("#tray")
        watched.until('document.querySelector(".turn:nth-last-child(2) audio").duration === 1.5')
        named = page.evaluate('[...document.querySelectorAll(".turn:nth-last-child(2) audio")].map((e) => e.ariaLabel)')
        assert named == ["Sound: a.wav", "Sound: f.m4a"], named
        assert page.inner_text(".turn:nth-last-child(2) .player") == "a.wav"
        page.set_input_files(
            "#sound-file", [{"name": "it's.wav", "mimeType": "audio/wav", "buffer": base64.b64decode(wav(1))}]
        )
        watched.until('document.querySelectorAll("#tray li").length === 1')
        page.click("#as-curl")
        code = text(watched, "#snippet-text")
        # that of the turn before is sent again
        for name in ("'a.wav'", "'it'\\''s.wav'"):
            assert f'"audio_url":{{"url":"data:audio/wav;base64,$(base64 < {name} |' in code, code
        assert text(watched, "#snippet-said").endswith("sounds are read from files where the code runs")
        page.click("#as-python")
        assert 'data_url("it\'s.wav", "audio/wav")' in text(watched, "#snippet-text")
        page.click("#send")
        watched.until('document.querySelectorAll(".turn.answer").length === 2')
        watched.until(
            '[...document.querySelectorAll("#requests li")].some((row) => row.textContent.includes("3 sounds"))'
        )
        page.check("input[value=completion]", force=True)
        assert page.is_hidden("#sound-open")
        page.evaluate(GIVE, [wav(1), ["b.wav"], "drop", "audio/wav"])
        watched.until('document.getElementById("timing").textContent === "sounds are for chats"')


def a_model_without_chats_of_them_gets_none(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as watched:
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        for noun, file in (
            ("picture", [png(64, 48), ["b.png"], "drop"]),
            ("sound", [wav(1), ["b.wav"], "drop", "audio/wav"]),
        ):
            watched.page.evaluate(GIVE, file)
            watched.until(f'document.getElementById("timing").textContent === "chats with this model take no {noun}s"')
            assert watched.page.is_hidden(f"#{noun}-open") and watched.page.is_hidden("#tray")


def the_page_lies_below_a_path(browser: Any, server: Server) -> None:
    with opened(browser, f"{server.url}/llm") as watched:
        page, asked = watched.page, []
        page.on("request", lambda request: asked.append(urlsplit(request.url).path))
        page.reload()
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        page.click("#send")
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        page.click("#as-curl")
        assert f"curl -N {server.url}/llm/v1/" in text(watched, "#snippet-text")
        assert len(asked) > 10 and all(path.startswith("/llm/") for path in asked), asked


def a_model_is_chosen(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as watched:
        page = watched.page
        page.wait_for_selector("#models:not([hidden])")
        assert page.is_hidden("#model") and page.input_value("#models") == "one"
        watched.until('document.querySelector("#models option:last-child").label === "three (unloaded)"')
        page.select_option("#models", "two")
        watched.until('document.title === "Albireo · two"')
        watched.until('document.getElementById("state").textContent === "not loaded yet"')
        assert page.url.endswith("?model=two") and page.input_value("#models") == "two"
        page.click("#send")
        watched.until('document.getElementById("timing").textContent.includes("ended: ")')
        assert text(watched, ".turn.answer .who") == "two"
        watched.until('document.getElementById("state").textContent === "ready, idle"')
        page.focus("#models")
        watched.until('document.querySelector("#models option").label === "one (asleep)"')
        page.click("#load")
        watched.until('document.querySelectorAll("#requests li.running").length >= 2')
        page.click("#load")
        shown = server.http.get("/health").json()["models"]
        assert [each["status"] for each in shown] == ["asleep", "ok", "unloaded"], shown
        page.set_viewport_size({"width": 390, "height": 844})
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{width} pixels wide"


def png(width: int, height: int) -> str:
    """A picture, in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def wav(seconds: float) -> str:
    """A sound, in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 16000, 0, "NONE", ""))
        written.writeframes(random.Random(0).randbytes(2 * round(16000 * seconds)))
    return base64.b64encode(file.getvalue()).decode()


#: Tiny models: the module of tests/ that makes them, which of its, and their limit.
TINY = {
    "sight": ("tiny_sights", "idefics3", '{"image": 2}'),
    "hearer": ("tiny_hearers", "qwen3_asr", '{"audio": 3}'),
    "speech": ("tiny_speech", None, '{"audio": 1}'),
}


def tiny(name: str, folder: Path) -> tuple[str, ...] | None:
    """Arguments that serve one of TINY; None where it cannot be made."""
    if any(find_spec(each) is None for each in ("torch", "transformers", "PIL", "soundfile")):
        return None
    module, family, limit = TINY[name]
    at = folder / name
    if not at.exists():
        import_module(module).save(at, *([] if family is None else [family]))
    return str(at), "--dtype", "float32", "--limit-mm-per-prompt", limit


#: (check, arguments of its server, or which of TINY it serves).
CHECKS: list[tuple[Callable[[Any, Server], None], tuple[str, ...] | str]] = [
    (chat_streams, ()),
    (completion_stops, ()),
    (blocks_are_coloured, ()),
    (a_phone_has_no_sideways_scroll, ()),
    (controls_have_names, ()),
    (a_key_is_asked_for, ("--api-key", "sesame")),
    (pictures_are_shown_to_the_model, "sight"),
    (sounds_are_played_to_the_model, "hearer"),
    (a_model_without_chats_of_them_gets_none, ()),
    (a_model_without_chats_of_them_gets_none, "speech"),
    (the_page_lies_below_a_path, ("--root-path", "/llm")),
    (a_model_is_chosen, tuple(f"{name}={BUNDLED}" for name in ("one", "two", "three"))),
]


def shots(browser: Any, server: Server, directory: Path) -> None:
    """Pictures of the page under its demonstration load, and idle."""
    directory.mkdir(parents=True, exist_ok=True)
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    for name, options in (("light", {}), ("dark", {"color_scheme": "dark"}), ("phone", phone)):
        with opened(browser, server.url, **options) as watched:
            page = watched.page
            page.click("#send")
            watched.until('document.getElementById("timing").textContent.includes("ended: ")')
            page.click("#load")
            page.wait_for_timeout(14000)
            watched.until('document.querySelectorAll("#requests li.running").length >= 4')
            page.screenshot(path=directory / f"{name}.png")
            page.screenshot(path=directory / f"{name}-full.png", full_page=True)
            for part in ("blocks", "steps") if name == "phone" else ():
                page.evaluate(f'document.getElementById("{part}").scrollIntoView({{ behavior: "instant" }})')
                page.wait_for_timeout(300)
                page.screenshot(path=directory / f"{name}-{part}.png")
            page.click("#load")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", type=Path, help="only write screenshots there")
    parser.add_argument("--server", nargs=argparse.REMAINDER, default=[], help="arguments of their server, last")
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        print("skipped: playwright is not installed (pip install playwright)")
        return 0
    if chromium is None:
        print("skipped: chromium is not installed (Debian: apt-get install chromium)")
        return 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.shots is not None:
            return with_server(given.server, lambda server: shots(browser, server, given.shots))
        with TemporaryDirectory() as folder:
            checks = [(check, tiny(it, Path(folder)) if isinstance(it, str) else it) for check, it in CHECKS]
            for check, words in checks:
                if words is None:
                    print(f"skipped {check.__name__}: its model is made with torch, transformers, Pillow and soundfile")
            run = [(check, words) for check, words in checks if words is not None]
            num_failed = sum(
                with_server(words, lambda s, c=check: c(browser, s), check.__name__) for check, words in run
            )
        print(f"{len(run) - num_failed} passed, {num_failed} failed")
        return int(num_failed > 0)


def with_server(words: Any, work: Callable[[Server], None], name: str = "shots") -> int:
    server = Server(*words).wait_until_ready()
    try:
        work(server)
        print(f"ok     {name}", flush=True)
        return 0
    except Exception as error:
        print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
        return 1
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
