"""Experiment `authentication`: what it costs to know who calls and to limit callers, beside an API that does neither.

Three API processes share a stack: one without authentication, one with it, one with it and the default rate limits.
Each round measures accepted requests of many users, without credentials, with a ticket of each user, with tickets and
rate limits, and with a token (RS256) of each user. Then it measures duplicates of one user, without credentials, with
a ticket and with a token.
"""

import time
from collections.abc import Iterator, Mapping
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
#: more tokens than an API verifies in a second
_TOKENS_PER_SECOND = 4_000


class Size(NamedTuple):
    """Seconds of each measurement."""

    closed_seconds: float


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the rates and the API's CPU time of each round."""
    private_key = rsa.generate_private_key(65537, 2048)
    with KeyServer() as key_server, start_environment(directory) as environment:
        key_server.add(_KEY_ID, private_key)
        apis = _start_apis(environment, key_server.url)
        environment.start_issuer()
        accepted = _accepted_plans(apis, size, private_key)
        repeated = {
            "none": ("off", replace(accepted["none"][1], users=1)),
            "ticket": ("on", replace(accepted["ticket"][1], users=1)),
            "token": ("on", replace(accepted["ticket"][1], users=1, ticket_key=None, headers=_bearer(private_key))),
        }
        for api, plan in accepted.values():
            _accepted(environment, api, plan)
        for _ in range(rounds):
            figures: dict[str, float] = {}
            for name, (api, plan) in accepted.items():
                figures |= {f"accepted_{name}_{key}": value for key, value in _accepted(environment, api, plan).items()}
            for name, (api, plan) in repeated.items():
                figures |= {f"repeated_{name}_{key}": value for key, value in _repeated(environment, api, plan).items()}
            yield figures


def _start_apis(environment: Environment, key_set_url: str) -> dict[str, int]:
    """Start the API processes and return their ports by name."""
    without_limits = {"RATE_LIMIT_USER": "0", "RATE_LIMIT_ALL": "0"}
    with_callers = {
        "AUTH": "on",
        "JWT_ISSUER": _ISSUER,
        "JWT_AUDIENCE": _AUDIENCE,
        "JWT_ALGORITHMS": "RS256",
        "JWT_JWKS_URL": key_set_url,
        "TICKET_KEYS": _TICKET_KEY,
    }
    kinds = {
        "off": {"AUTH": "off", **without_limits},
        "on": with_callers | without_limits,
        "limited": with_callers,
    }
    return {kind: environment.start_api(f"api-{kind}", **variables) for kind, variables in kinds.items()}


def _accepted_plans(apis: Mapping[str, int], size: Size, private_key: rsa.RSAPrivateKey) -> dict[str, tuple[str, Plan]]:
    """Return the name of an API and its plan, in which each request is of another user, by name of the figures."""

    def plan(api: str) -> Plan:
        return closed_model(apis[api], "", size.closed_seconds, _CONNECTIONS)

    tokens = [_token(private_key, user) for user in range(1, round(size.closed_seconds * _TOKENS_PER_SECOND) + 1)]
    return {
        "none": ("off", plan("off")),
        "ticket": ("on", replace(plan("on"), ticket_key=_TICKET_KEY)),
        "limited_ticket": ("limited", replace(plan("limited"), ticket_key=_TICKET_KEY)),
        "token": ("on", replace(plan("on"), requests=len(tokens), tokens=tokens)),
    }


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


def _bearer(private_key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Return the header with a token of user 1."""
    return {"Authorization": f"Bearer {_token(private_key, 1)}"}


def _token(private_key: rsa.RSAPrivateKey, user_id: int) -> str:
    now = int(time.time())
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": str(user_id), "nbf": now, "exp": now + _TOKEN_SECONDS}
    return jwt.encode(claims, private_key, "RS256", headers={"kid": _KEY_ID})


EXPERIMENT = Experiment(
    name="authentication",
    description="Accepted requests and duplicates with a ticket or a token, with and without rate limits, beside an API"
    " without authentication.",
    measure=measure,
    full=Size(4.0),
    quick=Size(2.0),
    rounds=3,
)
