"""A real Prometheus that scrapes the running system, with the rules of ops/prometheus."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from service.domain.caller import Role
from stack import ports
from tests.system import System
from tests.waiting import eventually

_OPS = Path(__file__).parents[1] / "ops" / "prometheus"


@contextmanager
def prometheus(system: System, directory: Path) -> Iterator[httpx.Client | None]:
    """Run Prometheus with the example's intervals until the end of the block; yield a client, None if it is missing."""
    if shutil.which("prometheus") is None:
        yield None
        return
    config = yaml.safe_load((_OPS / "prometheus.yml").read_text())
    config["rule_files"] = [str(_OPS / "rules.yml")]
    del config["alerting"]
    urls = {"coupons-api": system.stack.api_url, "coupons-issuer": system.stack.issuer_url}
    key = system.credentials.key(Role.ADMIN)
    for job in config["scrape_configs"]:
        del job["authorization"]
        if key:
            job["authorization"] = {"credentials": key}
        job["static_configs"] = [{"targets": [urls[job["job_name"]].removeprefix("http://")]}]
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{ports.any_free()}"
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}") as client:
            eventually(lambda: client.get("/-/ready").status_code == 200)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def has_evaluated(client: httpx.Client) -> bool:
    """Return whether the first scrape has succeeded and the rules were evaluated after it."""
    found = client.get("/api/v1/query", params={"query": "coupons:part_available:max"}).raise_for_status().json()
    return bool(found["data"]["result"])
