"""The runbooks as pages of the API, to which the alerts of the dashboard lead."""

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.system_alerts import AlertName
from tests.fixtures.callers import bearer

_ROOT = Path(__file__).parents[2]
_RUNBOOKS = sorted(path.stem for path in (_ROOT / "docs" / "runbooks").glob("*.md"))


@pytest.fixture
def client(api: httpx.Client, keys: dict[Role, NewKey]) -> httpx.Client:
    """A client with the key of an operator who may only read."""
    api.headers.update(bearer(keys[Role.READ].text))
    return api


def test_every_alert_has_a_page_whose_links_lead_to_others(client: httpx.Client) -> None:
    """Other pages of the repository are not served; of a link to one only the text is left."""
    assert set(AlertName) < set(_RUNBOOKS)
    for name in _RUNBOOKS:
        response = client.get(f"/dashboard/runbooks/{name}")

        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'self'; style-src 'self'" in response.headers["Content-Security-Policy"]
        assert "<script" not in response.text
        main = response.text.partition("<main")[2]
        assert {target for target in re.findall('href="([^"]*)"', main) if target not in _RUNBOOKS} == set()
        assert not re.search(r"\]\(|\*\*|^#", main, re.MULTILINE)


@pytest.mark.parametrize("name", ["Unknown", "CouponsKafkaDown.md", "..%2FREADME", "readme"])
def test_what_is_no_runbook_is_not_found(client: httpx.Client, name: str) -> None:
    assert client.get(f"/dashboard/runbooks/{name}").status_code == 404


def test_strangers_do_not_read_how_the_system_is_operated(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    path = "/dashboard/runbooks/CouponsKafkaDown"

    assert [api.get(path).status_code, api.get(path, headers=bearer(keys[Role.ON_BEHALF].text)).status_code] == [
        401,
        403,
    ]


def test_the_wheel_has_the_runbooks(tmp_path: Path) -> None:
    """They are outside of the package's folder in the repository."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=_ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    with ZipFile(wheel) as archive:
        names = [path for path in archive.namelist() if "/runbooks/" in path]
    assert sorted(names) == [f"service/api/runbooks/{name}.md" for name in _RUNBOOKS]
