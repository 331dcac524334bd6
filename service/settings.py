"""Everything that can be configured, typed and described once; the only place that reads the environment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.outbox.allow import AllowList

_MAX_PIXELS = 64_000_000
DEFAULT_URL = "http://127.0.0.1:8000"


class Settings(BaseSettings):
    """A field `name` is the flag `--name` of `serve` and the variable `INLIER_NAME`; a flag wins."""

    model_config = SettingsConfigDict(
        env_prefix="INLIER_", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    bundle: Path | None = Field(default=None, description="model bundle to serve: the folder `fit` wrote")
    bundles: Path | None = Field(
        default=None, description="folder below which bundles may be registered over HTTP"
    )
    trusted_keys: Path | None = Field(
        default=None,
        description="PEM file of Ed25519 public keys: bundles that none of them signed are refused",
    )
    strict_recipes: bool = Field(
        default=False, description="true refuses images that name a recipe nobody made"
    )
    data: Path = Field(default=Path("inlier-data"), description="folder for the database and the images")
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one")
    database_url: str | None = Field(
        default=None, description="SQLAlchemy database URL [default: inlier.sqlite3 in the data folder]"
    )
    redis_url: str | None = Field(
        default=None, description="Redis that carries the queue; without one it is inside the process"
    )
    workers_inside: int = Field(
        default=1, ge=0, le=1, description="0: only `worker` processes run the model; needs --redis-url"
    )
    lease_s: float = Field(
        default=30.0, gt=0, description="a worker that is silent for this time loses its images to others"
    )
    max_attempts: int = Field(
        default=3, ge=1, le=100, description="attempts at an image before it ends as ERROR"
    )
    sweep_s: float = Field(
        default=5.0, gt=0, le=3600, description="pause between two looks for images that a queue lost"
    )
    metrics_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port of a `worker` for metrics and health; 0: a free one",
    )
    blobs: str | None = Field(
        default=None,
        description="folder or `s3://bucket/prefix` for images and maps [default: blobs in the data folder]",
    )
    s3_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+$",
        description="address of an S3-compatible store [default: Amazon's of the region]",
    )
    s3_region: str = Field(default="us-east-1", description="region of the bucket")
    s3_access_key: str | None = Field(default=None, description="access key [default: as AWS tools find it]")
    s3_secret_key: SecretStr | None = Field(
        default=None, description="secret key; better as a variable, which no process list shows"
    )
    s3_timeout_s: float = Field(default=10.0, gt=0, description="longest time to wait for the store")
    runtime: Literal["onnx", "openvino", "torch"] = Field(default="onnx", description="what runs the network")
    device: Literal["cpu", "gpu"] = Field(default="cpu", description="where the network runs")
    threads: int = Field(default=0, ge=0, le=1024, description="threads of the network; 0 for one per core")
    profile: str | None = Field(
        default=None, description="reconstruction profile [default: the bundle's choice for the device]"
    )
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, description="largest request body")
    body_timeout_s: float = Field(
        default=60.0, gt=0, description="longest time to receive an image; 408 is answered then"
    )
    max_pixels: int = Field(default=_MAX_PIXELS, ge=64, description="largest image, in pixels")
    decode_processes: int = Field(
        default=2,
        ge=0,
        le=64,
        description="processes that decode images, and images decoded at once; 0 for threads",
    )
    decode_timeout_s: float = Field(default=10.0, gt=0, description="longest time to decode one image")
    queue_size: int = Field(default=256, ge=1, description="images waiting or running before 503 is answered")
    max_queue_s: float = Field(
        default=300.0, gt=0, description="predicted wait for a result beyond which 503 is answered"
    )
    queue_share: float = Field(
        default=0.5, gt=0, le=1, description="share of the queue that one API key may fill before 429"
    )
    batching: Literal["continuous", "static"] = Field(
        default="continuous",
        description="images join others between any two network calls, or start together",
    )
    batch_size: int = Field(default=8, ge=1, le=1024, description="most images in one engine call")
    batch_delay_ms: float = Field(
        default=5.0,
        ge=0,
        le=10_000,
        description="longest wait of an image for others to share a static batch",
    )
    shadow_backlog: int = Field(
        default=32,
        ge=0,
        le=10_000,
        description="images that wait for a shadow, others are skipped; 0: no shadows",
    )
    default_wait_s: float = Field(
        default=0.0, ge=0, description="wait for the result when a request has no `Prefer: wait`"
    )
    max_wait_s: float = Field(default=60.0, ge=0, description="upper bound of `Prefer: wait=N`")
    shutdown_grace_s: float = Field(
        default=30.0,
        gt=0,
        description="time to finish accepted work after SIGTERM; the rest runs at next start",
    )
    sink_allow: str = Field(
        default="public",
        description="where webhook and MQTT messages may go: `public`, networks, host names with `*`; commas",
    )
    sink_ca: Path | None = Field(
        default=None, description="PEM file of authorities that sinks' certificates may come from, too"
    )
    sink_timeout_s: float = Field(default=10.0, gt=0, le=300, description="longest time to deliver a message")
    sink_retry_s: float = Field(
        default=5.0, gt=0, le=3600, description="pause after a first failed delivery; doubles each time"
    )
    sink_attempts: int = Field(
        default=12, ge=1, le=1000, description="times a sink may refuse a message before it is given up"
    )
    sink_keep_days: float = Field(
        default=7.0, ge=0, le=3650, description="how long delivered messages stay listed"
    )
    auth: Literal["required", "off"] = Field(
        default="required", description="`off` lets anybody do everything; only while listening on loopback"
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="names to answer to, with commas [default: loopback names on loopback, else all]",
    )
    forwarded_allow_ips: str | None = Field(
        default=None, description="addresses of reverse proxies whose X-Forwarded headers count, with commas"
    )
    sign_in_over_http: bool = Field(
        default=False, description="let people sign in over plain http from other machines"
    )
    session_hours: float = Field(default=12.0, gt=0, le=720, description="longest time signed in")
    session_idle_minutes: float = Field(
        default=60.0, ge=2, le=43_200, description="time without a request after which a session ends"
    )
    public_metrics: bool = Field(default=False, description="answer /metrics without a key")
    rate_limit_per_s: float = Field(
        default=500.0, ge=0, description="requests of one key, person or address; 0 for no limit"
    )
    failures_per_minute: float = Field(
        default=120.0, ge=0, description="requests of one address without a valid key; 0 for no limit"
    )
    signins_per_minute: float = Field(
        default=10.0, ge=0, description="sign-ins that one address may try; 0 for no limit"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe level that is logged"
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="`text` for people (coloured on a terminal), `json` for log collectors"
    )

    traces: Literal["off", "otlp"] = Field(
        default="off", description="`otlp` sends OpenTelemetry traces to where OTEL_ variables say"
    )

    @field_validator("sink_allow")
    @classmethod
    def _readable(cls, value: str) -> str:
        AllowList.parse(value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # A .env file or a secrets folder lying around must not change how a line inspects.
        return init_settings, env_settings

    @model_validator(mode="after")
    def _someone_runs(self) -> "Settings":
        if not self.workers_inside and self.redis_url is None:
            raise ValueError("--workers-inside 0 needs --redis-url: nothing else connects them")
        return self

    @property
    def url(self) -> str:
        """The database URL in effect."""
        return self.database_url or f"sqlite:///{(self.data / 'inlier.sqlite3').absolute()}"


@dataclass(frozen=True)
class ClientEnvironment:
    """Where the clients find a service, and their key."""

    url: str
    key: str | None


def client_environment() -> ClientEnvironment:
    """INLIER_URL and INLIER_KEY."""
    return ClientEnvironment(
        os.environ.get("INLIER_URL") or DEFAULT_URL, os.environ.get("INLIER_KEY") or None
    )


def settings_problem(error: ValidationError) -> str:
    """A validation error of `Settings` as one line that names flag and variable."""
    parts = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else "settings"
        parts.append(f"--{name.replace('_', '-')} (INLIER_{name.upper()}): {item['msg']}")
    return "; ".join(parts)


def limit_opencv(max_pixels: int | None = None) -> None:
    """Make OpenCV refuse larger images before it allocates them; effective before the first `import cv2`."""
    if max_pixels is None:
        try:
            max_pixels = Settings().max_pixels
        except ValidationError:
            max_pixels = _MAX_PIXELS  # the start of the service reports the bad setting in full
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max_pixels)
    # The decoders' own chatter about damaged uploads is not for the service's log: the client is told.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


def decoder_environment(max_pixels: int) -> dict[str, str]:
    """What a decoding process is told: our environment without our settings, which hold secrets."""
    # It listens to OpenCV (`service.overheard`); nothing of that reaches the log.
    return {**_without_settings(), "INLIER_MAX_PIXELS": str(max_pixels), "OPENCV_LOG_LEVEL": "WARNING"}


def postgres_environment(password: str | None) -> dict[str, str]:
    """What PostgreSQL's own programs are told: the password here, where no process list shows it."""
    return {**_without_settings(), **({"PGPASSWORD": password} if password else {})}


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INLIER_")}


def child_environment(threads: int) -> dict[str, str]:
    """Our environment, for a computation that is to use so many threads; 0: as many as it likes."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads else ()
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def describe() -> list[dict[str, Any]]:
    """Every setting as `{name, flag, variable, default, description}`, for help and documentation."""
    return [
        {
            "name": name,
            "flag": f"--{name.replace('_', '-')}",
            "variable": f"INLIER_{name.upper()}",
            "default": field.default,
            "description": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
