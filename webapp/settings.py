"""Where the servers listen and where the studies are kept, from the environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WebappSettings(BaseSettings):
    """`DATABASE_URL` and `WEBAPP_…`; an option of the command line wins."""

    model_config = SettingsConfigDict(frozen=True)

    database_url: str = Field(default="sqlite:///studies.sqlite3", validation_alias="DATABASE_URL")
    host: str = Field(default="127.0.0.1", validation_alias="WEBAPP_HOST")
    port: int = Field(default=7860, ge=1, le=65535, validation_alias="WEBAPP_PORT")
    admin_port: int = Field(default=7861, ge=1, le=65535, validation_alias="WEBAPP_ADMIN_PORT")
    base_url: str | None = Field(default=None, validation_alias="WEBAPP_BASE_URL")
    """Address under which readers reach the study, for their links; else host and port."""

    @property
    def readers_url(self) -> str:
        """The address that personal links begin with."""
        return (self.base_url or f"http://{self.host}:{self.port}").rstrip("/")
