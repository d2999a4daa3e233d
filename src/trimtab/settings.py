"""Settings, read once: arguments win over the environment (`TRIMTAB_…`), which wins over `config.toml`, which wins over
the defaults here. Only the composition root and the faces read them; the wings are handed plain arguments.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomlkit
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from trimtab.domain.errors import InvalidInput


class ConnectorOverride(BaseModel):
    """Point a connector at another address, e.g. a mirror or a test server."""

    model_config = ConfigDict(extra="forbid")

    base_url: str = Field("", description="Used instead of the connector's own address.")
    allow_private: bool = Field(False, description="Allow addresses on this machine or the local network.")
    user_agent: str = Field("", description="Sent instead of Trimtab's own; some services ask for a contact in it.")
    token_url: str = Field("", description="Asked for tokens instead of the connector's own address for that.")
    options: dict[str, str | int] = Field({}, description="What the connector asks to be set up: a folder, a server.")


def _default_home() -> Path:
    return user_data_path("trimtab", appauthor=False)


class Settings(BaseSettings):
    """Each field is an environment variable ``TRIMTAB_<NAME>`` and a line in ``config.toml``."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_", env_nested_delimiter="__", extra="forbid", validate_default=True, frozen=True
    )
    config_name: ClassVar[str] = "config.toml"

    home: Path = Field(
        default_factory=_default_home,
        description="The one folder that holds all state. Deleting it is a clean uninstall.",
    )
    database_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL; empty means SQLite in `home`.")

    host: str = Field("127.0.0.1", description="Address the server listens on. Others than loopback need `expose`.")
    port: int = Field(8765, ge=1, le=65535, description="Port of the API.")
    ui_port: int = Field(8501, ge=1, le=65535, description="Port of the web UI.")
    faces: list[Literal["web", "api", "mcp"]] = Field(
        ["web", "api", "mcp"],
        description="What is offered: the web UI, the OpenAI-compatible API, MCP. Our own routes are always there.",
    )
    expose: bool = Field(False, description="Allow listening on an address that other machines can reach.")
    allowed_origins: list[str] = Field([], description="Web pages on other origins that may call the API.")

    model: str = Field(
        "default",
        description="`default`, a name from `trimtab models list`, a path to a .gguf file, or `provider:model`.",
    )
    base_url: str = Field("", description="An OpenAI-compatible server to use instead of the local engine.")
    api_key: SecretStr = Field(SecretStr(""), description="Key for `base_url`.")
    engine: Literal["auto", "openvino", "llamacpp"] = Field("auto", description="The local engine.")
    tools_mode: Literal["auto", "native", "guided", "none"] = Field("auto", description="How the model calls tools.")
    weights: Literal["auto", "as-shipped"] = Field("auto", description="`auto` serves the fastest faithful weights.")
    variant: str = Field(
        "",
        description="A variant of the model as `trimtab plan choose` names it, such as `openvino/int4`; nothing else "
        "is served in its place. Empty is the fastest faithful one.",
    )
    context: int = Field(4096, ge=512, le=131072, description="Tokens of context for each request.")
    parallel: int = Field(4, ge=1, le=32, description="Requests the local engine works on at once.")
    threads: int = Field(0, ge=0, le=256, description="Threads of the local engine; 0 means one a physical core.")
    batch: int = Field(256, ge=32, le=4096, description="Tokens of a prompt that the local engine reads in one go.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Overrides the model's own.")
    max_tokens: int = Field(512, ge=1, le=8192, description="Longest answer.")
    best_of: int = Field(
        1,
        ge=1,
        le=8,
        description="Answers to write, of which the best by the reward model is given once there is one.",
    )

    collections: list[str] = Field([], description="Collections that answers may come from; none named means all.")
    passages: int = Field(4, ge=1, le=20, description="Passages a question may bring into the prompt.")
    passage_floor: float = Field(0.30, ge=-1, le=1, description="Similarity under which a passage is not used.")
    sentence_floor: float = Field(0.50, ge=-1, le=1, description="Similarity under which documents do not answer.")
    tool_steps: int = Field(8, ge=1, le=32, description="Rounds of tool calls in one turn.")
    turn_seconds: float = Field(300, ge=5, description="Longest a turn may run, waiting for approval not counted.")
    approval_hours: float = Field(24, gt=0, description="How long an approval stays open.")

    connectors_disabled: list[str] = Field([], description="Connectors that are switched off.")
    connectors_only: list[str] = Field(
        [], description="The only connectors and MCP servers that are on; none named means all but those switched off."
    )
    connector_files: list[Path] = Field([], description="Python files with connectors of your own, not installed.")
    connector_secrets: Literal["file", "keyring"] = Field(
        "file",
        description="Where keys and sign-ins of connectors are kept: the file `secrets` in `home`, or the keyring.",
    )
    connectors: dict[str, ConnectorOverride] = Field({}, description="Overrides by connector name.")

    feedback_labels: list[str] = Field(["helpful", "harmless"], description="What an answer can be labelled for, 0/1.")
    feedback_consent: bool = Field(True, description="Feedback may train the model unless a person says otherwise.")
    label_others: bool = Field(False, description="People may label other people's conversations, not only their own.")
    trusted_people: list[str] = Field(["local"], description="Users who curate, and whose feedback is not capped.")

    rate_per_minute: int = Field(240, ge=1, description="Requests a key may make in a minute.")
    concurrent: int = Field(16, ge=1, description="Requests of one key at the same time.")
    max_prompt_chars: int = Field(64_000, ge=1000, description="Longest question, and longest prompt over the API.")
    max_upload_mb: int = Field(50, ge=1, description="Largest document that can be uploaded.")

    @field_validator("home", mode="before")
    @classmethod
    def _empty_is_unset(cls, home: Any) -> Any:
        return home or _default_home()  # as in `TRIMTAB_HOME= trimtab up`: not whatever folder one happens to be in

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = getattr(init_settings, "init_kwargs", {}).get("home") or os.environ.get("TRIMTAB_HOME")
        home = Path(given) if given else _default_home()
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, home / cls.config_name)

    @classmethod
    def load(cls, **arguments: Any) -> Settings:
        """Read all sources.

        Raises:
            InvalidInput: a value is out of range, of the wrong kind, or has an unknown name; says which and why.
        """
        try:
            return cls(**arguments)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(
                f"The setting '{name}' is wrong: {first['msg']}. Mend it in config.toml, in TRIMTAB_{name.upper()}, or "
                "run `trimtab config show`."
            ) from None
        except tomlkit.exceptions.ParseError as error:
            raise InvalidInput(f"config.toml is not valid TOML: {error}") from None
        except ValueError as error:  # tomllib's own error for a file that is not TOML
            raise InvalidInput(f"config.toml cannot be read: {error}") from None

    # ------------------------------------------------------------------ derived

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def index_dir(self) -> Path:
        return self.home / "index"

    @property
    def versions_dir(self) -> Path:
        return self.home / "versions"

    @property
    def jobs_dir(self) -> Path:
        return self.home / "jobs"

    @property
    def constitution_dir(self) -> Path:
        return self.home / "constitution"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def config_path(self) -> Path:
        return self.home / self.config_name

    @property
    def key_path(self) -> Path:
        """Where the first key is kept for this machine's own faces (mode 0600)."""
        return self.home / "key"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def database(self) -> str:
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / 'trimtab.db'}"

    # ------------------------------------------------------------------ changing

    def saved(self, name: str, value: Any) -> Settings:
        """Write one setting into `config.toml`, keeping its comments; returns settings with it. Dots lead into a table:
        ``connectors.tides.base_url``.

        Raises:
            InvalidInput: there is no such setting, or the value does not fit.
        """
        field, *path = name.split(".")
        if field not in type(self).model_fields:
            raise InvalidInput(f"There is no setting '{field}'. `trimtab config show` lists them.")
        given = {other: getattr(self, other) for other in self.model_fields_set if other != field}
        whole = _with(self.model_dump(mode="json")[field], path, value, name)
        changed = Settings.load(**{**given, "home": self.home, field: whole})
        text = self.config_path.read_text("utf-8") if self.config_path.exists() else ""
        document = tomlkit.parse(text)
        table: Any = document
        for part in (field, *path)[:-1]:
            table = table.setdefault(part, tomlkit.table())
        table[(field, *path)[-1]] = value if path or isinstance(value, str) else changed.model_dump(mode="json")[field]
        self.home.mkdir(parents=True, exist_ok=True)
        temporary = self.config_path.with_suffix(".tmp")
        temporary.write_text(tomlkit.dumps(document), "utf-8")
        temporary.chmod(0o600)
        os.replace(temporary, self.config_path)
        return changed

    def set_connector_enabled(self, name: str, enabled: bool) -> Settings:
        off = [n for n in self.connectors_disabled if n != name]
        return self.saved("connectors_disabled", off if enabled else [*off, name])


def _with(whole: Any, path: list[str], value: Any, name: str) -> Any:
    """`whole` with `value` at the end of `path`."""
    if not path:
        return value
    if not isinstance(whole, dict):
        raise InvalidInput(f"There is no setting {name!r}. `trimtab config show` lists them.")
    return {**whole, path[0]: _with(whole.get(path[0], {}), path[1:], value, name)}
