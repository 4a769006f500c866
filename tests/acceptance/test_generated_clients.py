"""Clients that other people's tools generate from the OpenAPI document compile, and run a sale."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import System

pytestmark = pytest.mark.timeout(300)  # the first run downloads npm's packages

_CLIENTS = Path(__file__).parents[1] / "clients"
_WITHOUT_DOCUMENTS = "apis,models,supportingFiles,apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"
#: npm's codes of errors for a registry that is not reached
_UNREACHED = re.compile(r"\b(?:ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b")


@pytest.fixture
def document(system: System, tmp_path: Path) -> Path:
    """The OpenAPI document of the running API."""
    path = tmp_path / "openapi.json"
    path.write_text(system.http.get("/openapi.json").text)
    return path


@pytest.fixture
def typescript() -> Path:
    """A folder with the sale and the packages of its lock file, which are installed once; skips without npm.

    In CI a machine without Node.js or without the registry is an error.
    """
    source = _CLIENTS / "typescript"
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(".stack/clients/typescript", digest)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if not (folder / "installed").exists():
        _install(folder)
        (folder / "installed").touch()
    return folder


def _install(folder: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        _skip("Node.js with npm is not installed")
    installed = _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", check=False)
    if _UNREACHED.search(installed.stderr):
        _skip("npm's registry is not reached")
    assert installed.returncode == 0, installed.stderr


def _skip(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_a_python_client_runs_a_sale(system: System, document: Path, tmp_path: Path) -> None:
    """Its types are those that the sale uses."""
    generator = str(Path(sys.executable).with_name("openapi-generator-cli"))
    _run(
        tmp_path, generator, "generate", "--generator-name", "python",
        "--input-spec", str(document), "--package-name", "coupons_client", "--global-property", _WITHOUT_DOCUMENTS,
    )  # fmt: skip
    shutil.copy(_CLIENTS / "python_sale.py", tmp_path)
    cache = str(Path(".stack/clients/mypy").absolute())
    _run(
        tmp_path, sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--config-file", "",
        "--cache-dir", cache, "python_sale.py",
    )  # fmt: skip

    sold = _run(tmp_path, sys.executable, "python_sale.py", system.stack.api_url)

    _record(system, sold.stdout)


def test_a_typescript_client_runs_a_sale(system: System, document: Path, typescript: Path) -> None:
    """The same, and JavaScript's numbers hold every id that the API gives out and takes."""
    shutil.copy(document, typescript)
    _run(typescript, "npm", "run", "generate")
    _run(typescript, "npm", "run", "build")

    sold = _run(typescript, "npm", "run", "--silent", "sale", system.stack.api_url)

    _record(system, sold.stdout)


def _run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if check:
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def _record(system: System, printed: str) -> None:
    """Tell the proof which requests were sent."""
    sale = json.loads(printed)
    system.record_unknown(sale["coupon_id"], *sale["users"])
