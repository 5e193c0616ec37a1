"""Typed configuration: defaults, then the TOML file, then environment variables DICOMNODE_<TABLE>__<KEY>."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dicomnode.errors import ConfigError

#: Rules, codes, pipelines and reference weights: data that ships beside the packages.
CONFIG_DIR = Path(__file__).resolve().parent.parent / "config"

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Receive(_Table):
    ae_title: AETitle = "DICOMNODE"
    host: str = "0.0.0.0"  # noqa: S104 - a listener for the hospital network
    port: Port = 11112
    allow: tuple[str, ...] = ("*",)
    tls: bool = False


class Limits(_Table):
    associations: Annotated[int, Field(ge=1, le=300)] = 200
    idle_seconds: Annotated[float, Field(gt=0)] = 60.0
    instance_mb: Annotated[int, Field(ge=1)] = 1024
    free_mb: Annotated[int, Field(ge=1)] = 1024


class Tls(_Table):
    certificate: Path
    key: Path
    authorities: Path


class Assembly(_Table):
    quiet_seconds: Seconds = 20.0
    max_wait_seconds: Seconds = 600.0


class Sender(_Table):
    ae_title: AETitle
    host: str | None = None
    port: Port | None = None
    tls: bool = False
    quiet_seconds: Seconds | None = None


#: The result objects that a destination may ask for, and the three that every viewer shows in some way.
ResultKind = Literal["seg", "labelmap", "pmap", "sr", "csr", "sc", "gsps", "pdf", "kos", "reject"]
USUAL_RESULTS: tuple[ResultKind, ...] = ("seg", "sr", "sc")


#: How a destination shows that it holds what it accepted.
Proof = Literal["commitment", "find", "none"]


class Destination(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    ae_title: AETitle
    host: str
    port: Port
    tls: bool = False
    deidentify: bool = False
    results: tuple[ResultKind, ...] = USUAL_RESULTS
    max_frames: Annotated[int, Field(ge=1)] | None = None
    proof: Proof | None = None


class Retention(_Table):
    inputs_days: Annotated[float, Field(gt=0)] | None = None
    results_days: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _results_outlive_inputs(self) -> Retention:
        if self.results_days is not None and (self.inputs_days is None or self.results_days < self.inputs_days):
            raise ValueError("results_days must not be less than inputs_days, and needs it")
        return self


class LedgerTable(_Table):
    url: str = ""


class Web(_Table):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080


class Audit(_Table):
    enabled: bool = True
    host: str = ""
    port: Port = 6514


class Inference(_Table):
    device: str = "auto"
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_seconds: Seconds = 900.0
    memory_gib: Annotated[float, Field(gt=0)] = 16.0


class Config(BaseSettings):
    """Everything that can be set. config/dicomnode.toml is the manual."""

    model_config = SettingsConfigDict(
        env_prefix="DICOMNODE_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    data_dir: Path = Path("dicomnode-data")
    receive: Receive = Receive()
    limits: Limits = Limits()
    tls: Tls | None = None
    assembly: Assembly = Assembly()
    sender: tuple[Sender, ...] = ()
    destination: tuple[Destination, ...] = ()
    retention: Retention = Retention()
    ledger: LedgerTable = LedgerTable()
    web: Web = Web()
    inference: Inference = Inference()
    audit: Audit = Audit()

    @field_validator("destination")
    @classmethod
    def _names_are_unique(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        if len({destination.name for destination in value}) < len(value):
            raise ValueError("two destinations have the same name")
        return value

    @model_validator(mode="after")
    def _tls_has_certificates(self) -> Config:
        peers: tuple[Receive | Sender | Destination, ...] = (self.receive, *self.sender, *self.destination)
        if self.tls is None and any(peer.tls for peer in peers):
            raise ValueError("tls = true needs the table [tls] with certificate, key and authorities")
        return self

    @model_validator(mode="after")
    def _audit_can_be_forwarded(self) -> Config:
        if self.audit.host and (self.tls is None or not self.audit.enabled):
            raise ValueError("audit.host needs audit.enabled = true and the table [tls]")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, so that one file serves several machines."""
        return env_settings, init_settings

    @property
    def result_kinds(self) -> tuple[ResultKind, ...]:
        """What has to be made: everything that a destination wants, or the usual without any."""
        wanted = {kind for destination in self.destination for kind in destination.results}
        return tuple(sorted(wanted)) if self.destination else USUAL_RESULTS

    def wants(self, kind: ResultKind) -> bool:
        """Whether any destination asks for a kind of result."""
        return any(kind in destination.results for destination in self.destination)

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: a SQLite file in the data directory unless one is configured."""
        return self.ledger.url or f"sqlite:///{self.data_dir.absolute()}/ledger.sqlite"

    def sender_for(self, calling_ae: str) -> Sender | None:
        """The table that describes one sender, if there is one."""
        return next((sender for sender in self.sender if sender.ae_title == calling_ae), None)


def load(path: Path | None) -> Config:
    """Read the configuration; raises ConfigError naming file, key and value."""
    where = str(path) if path else "the environment"
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text()) if path else {}
        return Config(**values)
    except OSError as error:
        raise ConfigError(
            f"{where}: {error.strerror}", hint="give the path of a TOML file, see config/dicomnode.toml"
        ) from error
    except ValidationError as error:
        lines = [_explain(where, detail) for detail in error.errors()]
        raise ConfigError("; ".join(lines), hint="config/dicomnode.toml explains every key") from error
    except (ValueError, RecursionError) as error:  # of the TOML, of its UTF-8, of JSON in the environment
        raise ConfigError(f"{where}: {error}", hint="this is not valid TOML") from error


def _explain(where: str, detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'"
    return f"{where}: {key} = {detail['input']!r}: {detail['msg']}"
