"""Experiment `authentication`: what it costs to know who calls, beside an API without authentication.

Two API processes share a stack: one with AUTH=off, one with tokens, tickets and API keys. Each round measures accepted
requests without credentials and with a ticket of each user, then duplicates of one user without credentials, with a
ticket and with a token.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec.structs import replace

from benchmarks import decisions
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, WARM_UP_SECONDS, Experiment
from benchmarks.figures import Figures
from benchmarks.load.http_load import Plan, closed_model, issuance_path, run_load
from testkit.key_server import KeyServer

_CONNECTIONS = 256
_TICKET_KEY = "benchmark-" * 3
_KEY_ID = "benchmark"
_ISSUER, _AUDIENCE = "https://benchmark.example", "coupons"
_TOKEN_SECONDS = 3600


class Size(NamedTuple):
    """Seconds of each measurement."""

    closed_seconds: float


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the rates and the API's CPU time of each round."""
    private_key = rsa.generate_private_key(65537, 2048)
    with KeyServer() as key_server, start_environment(directory) as environment:
        key_server.add(_KEY_ID, private_key)
        apis = {
            "off": environment.start_api("api-off", AUTH="off"),
            "on": environment.start_api(
                "api-on",
                AUTH="on",
                JWT_ISSUER=_ISSUER,
                JWT_AUDIENCE=_AUDIENCE,
                JWT_ALGORITHMS="RS256",
                JWT_JWKS_URL=key_server.url,
                TICKET_KEYS=_TICKET_KEY,
            ),
        }
        environment.start_issuer()
        token = {"Authorization": f"Bearer {_token(private_key)}"}
        plans = {
            "none": ("off", closed_model(apis["off"], "", size.closed_seconds, _CONNECTIONS)),
            "ticket": (
                "on",
                replace(closed_model(apis["on"], "", size.closed_seconds, _CONNECTIONS), ticket_key=_TICKET_KEY),
            ),
        }
        repeated = {name: (api, replace(plan, users=1)) for name, (api, plan) in plans.items()}
        repeated["token"] = ("on", replace(repeated["none"][1], port=apis["on"], headers=token))
        for api, plan in plans.values():
            _accepted(environment, api, plan)
        for _ in range(rounds):
            figures: dict[str, float] = {}
            for name, (api, plan) in plans.items():
                figures |= {f"accepted_{name}_{key}": value for key, value in _accepted(environment, api, plan).items()}
            for name, (api, plan) in repeated.items():
                figures |= {f"repeated_{name}_{key}": value for key, value in _repeated(environment, api, plan).items()}
            yield figures


def _accepted(environment: Environment, api: str, plan: Plan) -> dict[str, float]:
    """Return the rate of accepted requests, which are issued meanwhile, and the API's CPU time of each."""
    coupon_id = environment.create_coupon(UNLIMITED)
    with environment.cpu_time((f"api-{api}",)) as cpu:
        result = run_load(replace(plan, paths=[issuance_path(coupon_id)]))
        decisions.wait_for_count(environment, coupon_id, len(result.due))
    return _figures(result.rate_after(WARM_UP_SECONDS), cpu.figures(len(result.due)))


def _repeated(environment: Environment, api: str, plan: Plan) -> dict[str, float]:
    """Return the same for one user's requests, of which the first is accepted and the others are duplicates."""
    coupon_id = environment.create_coupon(UNLIMITED)
    with environment.cpu_time((f"api-{api}",)) as cpu:
        result = run_load(replace(plan, paths=[issuance_path(coupon_id)]), 202, 409)
    return _figures(result.rate_after(WARM_UP_SECONDS), cpu.figures(len(result.due)))


def _figures(per_second: float, cpu: dict[str, float]) -> dict[str, float]:
    return {"per_second": per_second, "cpu_us": cpu["all_cpu_us"]}


def _token(private_key: rsa.RSAPrivateKey) -> str:
    now = int(time.time())
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": "1", "nbf": now, "exp": now + _TOKEN_SECONDS}
    return jwt.encode(claims, private_key, "RS256", headers={"kid": _KEY_ID})


EXPERIMENT = Experiment(
    name="authentication",
    description="Accepted requests and duplicates with a ticket or a token, beside an API without authentication.",
    measure=measure,
    full=Size(4.0),
    quick=Size(2.0),
    rounds=3,
)
