"""Reads secrets from files: NAME_FILE is the path of the file that contains the value of NAME."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from service.config.parsing import shown_path


class FileFault(NamedTuple):
    """Stands for a value that could not be read; `checked` raises ValueError for it, so that all are reported."""

    reason: str


class SecretFiles(EnvSettingsSource):
    """The values of all secrets and URLs, which may contain a password, for which NAME_FILE is set."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return the content of the setting's file, None if it has none, or a FileFault."""
        path = self.env_vars.get(f"{field_name}_file") if field_name in names(self.settings_cls) else None
        if path is None:
            return None, field_name, False
        if self.env_vars.get(field_name) is not None:
            return FileFault(f"is set, and {field_name.upper()}_FILE as well: unset one of them"), field_name, False
        return read_secret(f"{field_name.upper()}_FILE", path), field_name, False


def read_secret(variable: str, path: str) -> str | FileFault:
    """Return the content of a file without the line break at its end; a fault names the variable, never the content."""
    shown = f"{variable}={shown_path(path)}"
    try:
        content = Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return FileFault(f"{shown}: the file is not text in UTF-8")
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return FileFault(f"{shown}: the file cannot be read: {getattr(error, 'strerror', None) or error}")
    return content or FileFault(f"{shown}: the file is empty")


def checked(value: Any) -> Any:
    """Return the value; raise ValueError with the reason if it is a FileFault."""
    if isinstance(value, FileFault):
        raise ValueError(value.reason)  # noqa: TRY004  # pydantic reports it with the setting
    return value


def names(settings_cls: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the settings that may be in a file: secrets, and URLs, which may contain a password."""
    fields = settings_cls.model_fields.items()
    return tuple(name for name, field in fields if field.annotation is SecretStr or name.endswith("_url"))
