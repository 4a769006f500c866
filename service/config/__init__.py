"""All settings: read from the environment once, checked at start, with every fault reported at once.

Each module holds the settings of one topic, with meaning and default, and refuses what contradicts another setting of
its topic.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.config.credentials import CredentialSettings
from service.config.issuance import IssuanceSettings
from service.config.kafka_security import KafkaSecuritySettings
from service.config.network import NetworkSettings
from service.config.operation import OperationSettings
from service.config.parsing import MIN_SECRET_BYTES
from service.config.rate_limits import RateLimitSettings
from service.config.secret_files import SecretFiles, checked
from service.config.servers import ServerSettings
from service.config.tracing import TracingSettings
from service.domain.errors import Misconfigured


class Settings(
    OperationSettings,
    IssuanceSettings,
    RateLimitSettings,
    CredentialSettings,
    NetworkSettings,
    ServerSettings,
    KafkaSecuritySettings,
    TracingSettings,
    BaseSettings,
):
    """The settings of a process; the environment variable of a field is its name in upper case.

    A secret or a URL may be in a file instead, whose path is in the variable with `_FILE` appended.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    @field_validator("*", mode="before")
    @classmethod
    def _could_be_read(cls, value: Any) -> Any:
        return checked(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # not used: what sets a process is its environment
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the first one that has a value decides; files come first to see a value given twice."""
        return init_settings, SecretFiles(settings_cls), env_settings


def load() -> Settings:
    """Read the environment; raise Misconfigured with every setting that is absent, malformed or contradictory."""
    return _load({})


def load_without_keys() -> Settings:
    """Read the environment of a process that neither makes nor verifies request ids; raise Misconfigured.

    It need not have REQUEST_ID_KEYS. The settings hold a random key instead, with which no request id verifies.
    """
    return _load({"request_id_keys": SecretStr(secrets.token_hex(MIN_SECRET_BYTES))})


def _load(given: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            ": ".join([*(str(part).upper() for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors()
        ]
        raise Misconfigured(faults) from None
