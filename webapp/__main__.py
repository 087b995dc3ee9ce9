"""`python -m webapp COMMAND`; alone it serves. The commands lie in `webapp/commands_*.py`."""

from webapp import commands_data, commands_readers, commands_servers, commands_study  # noqa: F401
from webapp.commands import cli

if __name__ == "__main__":
    cli(prog_name="python -m webapp")
