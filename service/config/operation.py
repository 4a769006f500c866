"""When an alert is raised, what is logged, and which faults tests may inject."""

from typing import Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator


class OperationSettings(BaseModel):
    """Thresholds of alerts, form and level of the log, and what is for tests only."""

    dead_letters_per_minute: int = Field(
        10, ge=1, le=1_000_000, description="dead letters in one minute above which an alert is raised"
    )
    undecided_alert_seconds: int = Field(
        10, ge=5, le=86_400, description="age of a partition's oldest undecided record above which an alert is raised"
    )
    log_format: Literal["json", "console"] = Field(
        "console", description="json: one object a line; console: readable text"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    fault_injection: bool = Field(False, description="apply the Fault header of requests: demos and tests only")
    crash_points: str = Field("", description="folder whose files arm crash points and shift the clock: tests only")
    clock_offset_ms: int = Field(
        0, description="milliseconds by which the clock of this process is shifted: tests only"
    )

    @field_validator("crash_points", "clock_offset_ms")
    @classmethod
    def _needs_fault_injection(cls, value: str | int, info: ValidationInfo) -> str | int:
        if value and not info.data.get("fault_injection"):
            raise ValueError("is for tests only: set FAULT_INJECTION=true with it")
        return value
