"""Check deploy/ against a real Prometheus (Debian's package): the scrape example is valid, and every query of the
dashboard brings data from a server that has work.

Run: python tools/check_prometheus.py. Says why, and ends with 0, where Prometheus is not installed.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from server_process import Server, wait_until  # noqa: E402

#: Counts nothing on a server that does well, so it has no series there.
MAY_BE_EMPTY = ("admission_rejections",)


def main() -> int:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        print("skipped: prometheus is not installed (Debian: apt-get install prometheus)")
        return 0
    subprocess.run(["promtool", "check", "config", str(ROOT / "deploy" / "prometheus.yml")], check=True)
    with tempfile.TemporaryDirectory() as directory:
        server = Server().wait_until_ready()
        try:
            return check(server, Path(directory))
        finally:
            server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check(server: Server, directory: Path) -> int:
    config = (ROOT / "deploy" / "prometheus.yml").read_text()
    address = server.url.removeprefix("http://")
    assert "127.0.0.1:8000" in config and "scrape_interval: 5s" in config, "what is changed for the check"
    config = config.replace("127.0.0.1:8000", address).replace("scrape_interval: 5s", "scrape_interval: 1s")
    (directory / "prometheus.yml").write_text(config)
    here = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
         f"--web.listen-address=127.0.0.1:{here}", "--log.level=error"],
        cwd=directory,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{here}", timeout=30, trust_env=False) as prometheus:
            return look(server, prometheus)
    finally:
        process.terminate()
        process.wait(30)


def work(server: Server, seconds: float) -> None:
    """Some requests, so that there is something to see."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        prompt = "Once upon a time there was a fox who liked to count to five: one two three four five" * 3
        server.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 40, "ignore_eos": True})
        time.sleep(0.05)


def look(server: Server, prometheus: Any) -> int:
    wait_until(lambda: ready(prometheus))
    work(server, 8.0)
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    num_bad = num_good = 0
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5s").replace("$model", ".*")
            answer = prometheus.get("/api/v1/query", params={"query": query}).json()
            values = [float(series["value"][1]) for series in answer.get("data", {}).get("result", [])]
            is_good = answer["status"] == "success" and (
                (values and not any(math.isnan(value) for value in values)) or any(n in query for n in MAY_BE_EMPTY)
            )
            num_good, num_bad = num_good + is_good, num_bad + (not is_good)
            shown = ", ".join(f"{value:.4g}" for value in values) or "no series"
            print(f"{'ok ' if is_good else 'BAD'} {panel['title']:20} {target['legendFormat']:26} {shown}")
    scraped = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    print(f"scrapes: {', '.join(target['health'] for target in scraped)}")
    num_bad += any(target["health"] != "up" for target in scraped)
    print(f"{num_good} passed, {num_bad} failed")
    return int(num_bad > 0)


def ready(prometheus: Any) -> bool:
    try:
        return bool(prometheus.get("/-/ready").status_code == 200)
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main())
