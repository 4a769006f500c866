"""The addresses at which the API and the issuer listen, and who reaches them there."""

from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticUseDefault

from service.config.parsing import (
    ROOT_PATH_PATTERN,
    IPNetwork,
    is_loopback,
    is_service_address,
    parse_networks,
    parse_origins,
    split_list,
)

#: as `Host` names them, without the port
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class NetworkSettings(BaseModel):
    """Addresses, ports and names of the API and the issuer; without authentication they stay on loopback."""

    auth: Literal["on", "off"] = Field(
        "on",
        description="on: callers need a token, a ticket or an API key; off: everyone may do everything, on loopback"
        " addresses only",
    )
    api_host: str = Field("127.0.0.1", description="address the API binds to")
    api_port: int = Field(8000, ge=1, le=65535, description="port the API binds to")
    api_processes: int = Field(1, ge=1, le=64, description="API processes that share the port")
    root_path: str = Field(
        "",
        description="path below which a reverse proxy serves the API, such as /coupons-api; the proxy removes it from"
        " requests, and references of the API begin with it; empty: none, or that in X-Forwarded-Prefix of"
        " TRUSTED_PROXIES",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=5,
        le=3_600,
        description="seconds for which the API keeps an idle connection; more than a proxy or load balancer in front of"
        " it, which would otherwise send requests on connections that the API has just closed",
    )
    issuer_host: str = Field("127.0.0.1", description="address of the issuer's /readyz and /metrics")
    issuer_port: int = Field(8001, ge=1, le=65535, description="port of the issuer's /readyz and /metrics")
    allowed_hosts: str = Field(
        "",
        description="names under which the API is reached besides those of loopback, separated by commas; empty: any"
        " with AUTH=on, none with AUTH=off",
    )
    cors_origins: str = Field(
        "",
        description="sites whose pages may call the API and frame the page /wait, separated by commas, each as browsers"
        " name it: https://shop.example; empty: none",
    )
    public_docs: bool = Field(True, description="show /docs and /openapi.json to everyone, not to operators only")
    trusted_proxies: str = Field(
        "",
        description="networks of the reverse proxies whose header names the client, separated by commas:"
        " 10.0.0.0/8,fd00::/8; empty: the client is the peer of the connection",
    )
    trusted_proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="the header that the trusted proxies set; the other one is ignored"
    )

    @field_validator("api_host", "issuer_host")
    @classmethod
    def _stays_on_loopback(cls, host: str, info: ValidationInfo) -> str:
        if info.data.get("auth") == "off" and not is_loopback(host):
            raise ValueError(f"{host} is not a loopback address and AUTH is off: set AUTH=on")
        return host

    @field_validator("api_port", "issuer_port", mode="before")
    @classmethod
    def _ignore_address_of_service(cls, value: Any) -> Any:
        if isinstance(value, str) and is_service_address(value):
            raise PydanticUseDefault
        return value

    @field_validator("issuer_port")
    @classmethod
    def _differs_from_api_port(cls, port: int, info: ValidationInfo) -> int:
        if (info.data.get("issuer_host"), port) == (info.data.get("api_host"), info.data.get("api_port")):
            raise ValueError("must differ from API_PORT: both would listen on the same address")
        return port

    @field_validator("root_path")
    @classmethod
    def _is_root_path(cls, path: str) -> str:
        if path and not ROOT_PATH_PATTERN.fullmatch(path):
            raise ValueError("must be a path such as /coupons-api, with a slash at its beginning and none at its end")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _has_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

    @field_validator("cors_origins")
    @classmethod
    def _has_origins(cls, text: str) -> str:
        parse_origins(text)
        return text

    @cached_property
    def host_names(self) -> frozenset[str] | None:
        """The names under which the API may be reached; None: any. Those of loopback are nobody else's."""
        names = frozenset(split_list(self.allowed_hosts.lower()))
        return names | LOOPBACK_NAMES if names or self.auth == "off" else None

    @property
    def proxy_networks(self) -> tuple[IPNetwork, ...]:
        """The networks of the trusted proxies."""
        return parse_networks(self.trusted_proxies)

    @cached_property
    def allowed_origins(self) -> tuple[str, ...]:
        """The sites whose pages may call the API and frame the page /wait."""
        return parse_origins(self.cors_origins)
