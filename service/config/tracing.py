"""Where traces of requests go, and of how many requests."""

from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from service.config.connection_urls import check_http_url

#: what the extra `tracing` adds, as it is imported
_NEEDED_MODULES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


class TracingSettings(BaseModel):
    """The variables of OpenTelemetry that decide whether there are traces; its SDK reads further ones by itself."""

    otel_exporter_otlp_endpoint: str = Field(
        "",
        description="receiver of traces, by OTLP over HTTP: http://host:4318; empty: no traces; docs/tracing.md names"
        " further variables",
    )
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = Field(
        "http/protobuf", description="how traces are sent; no other protocol is supported"
    )
    otel_traces_sampler: Literal["parentbased_traceidratio"] = Field(
        "parentbased_traceidratio", description="which requests are traced; no other sampler is supported"
    )
    otel_traces_sampler_arg: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the requests for coupons that are traced of those without a valid header traceparent,"
        " by which a caller decides itself",
    )
    otel_service_name: str = Field(
        "", description="name of the process in traces; empty: coupons-api, coupons-issuer or coupons-worker"
    )

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _can_be_sent_to(cls, url: str) -> str:
        if not url:
            return url
        if check_http_url(url).username is not None:
            raise ValueError("must not have a user name or a password: OTEL_EXPORTER_OTLP_HEADERS can have them")
        if not all(map(_is_installed, _NEEDED_MODULES)):
            raise ValueError("needs the extra `tracing`, which is not installed: in a clone, pip install '.[tracing]'")
        return url


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False
