"""Where the server listens and where the study is kept, from the environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WebappSettings(BaseSettings):
    """`DATABASE_URL`, `WEBAPP_HOST` and `WEBAPP_PORT`; an option of the command line wins."""

    model_config = SettingsConfigDict(frozen=True)

    database_url: str = Field(default="sqlite:///studies.sqlite3", validation_alias="DATABASE_URL")
    host: str = Field(default="127.0.0.1", validation_alias="WEBAPP_HOST")
    port: int = Field(default=7860, ge=1, le=65535, validation_alias="WEBAPP_PORT")
