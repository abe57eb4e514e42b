"""Commands on the configuration: whether it is right, what it says in full, what it may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from colordaemon.cli.common import SYSTEM_CONFIG, ConfigFile, app, exit_codes, load
from colordaemon.cli.help import Commands, Group, examples
from colordaemon.logs import counted

config = Commands(
    cls=Group,
    help="Check, show and describe the configuration.",
    epilog=examples(
        "colordaemon config check config.yaml", "colordaemon config show --config config.yaml"
    ),
    no_args_is_help=True,
)
app.add_typer(config, name="config")


@config.command(epilog=examples("colordaemon config check", "colordaemon config check config.yaml"))
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", envvar="COLORDAEMON_CONFIG", help="The configuration file."),
    ] = SYSTEM_CONFIG,
) -> None:
    """Say every mistake of a configuration with its line, also in its presets; nothing is begun.

    Ends with 78 if there is one.
    """
    with exit_codes():
        from colordaemon.convert.routing import Routing
        from colordaemon.inbox.folders import find_folders

        settings = load(file)
        inboxes = len(find_folders(settings)) if settings.all_inboxes else 0
        Routing(settings)  # reads the presets
        said = "no inbox" if not inboxes else "1 inbox" if inboxes == 1 else f"{inboxes} inboxes"
        typer.echo(f"{file}: no mistakes ({said}, {counted(len(settings.presets), 'preset')})")


@config.command(
    epilog=examples("colordaemon config show", "colordaemon config show --config config.yaml")
)
def show(file: ConfigFile = None) -> None:
    """Print every setting as it is with a configuration, also those that it leaves out, as YAML."""
    with exit_codes():
        import yaml

        settings = load(file).model_dump(mode="json")
        typer.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), nl=False)


@config.command(
    epilog=examples(
        "colordaemon config example", "colordaemon config example -o /etc/colordaemon/config.yaml"
    )
)
def example(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file, a new one."),
    ] = None,
) -> None:
    """Print a configuration with every setting, its default, and a sentence on it."""
    with exit_codes():
        from colordaemon.config_file import EXAMPLE

        text = EXAMPLE.read_text(encoding="utf-8")
        if output is None:
            typer.echo(text, nl=False)
            return
        with output.open("x", encoding="utf-8") as file:
            file.write(text)


@config.command(
    epilog=examples(
        "colordaemon config schema", "colordaemon config schema -o colordaemon.schema.json"
    )
)
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file; print nothing."),
    ] = None,
) -> None:
    """Print the JSON Schema of the configuration, from which editors complete and check it.

    The first line of a configuration beside it: # yaml-language-server: $schema=FILE
    """
    with exit_codes():
        from colordaemon.config_file import json_schema

        text = json.dumps(json_schema(), indent=2)
        if output is None:
            typer.echo(text)
        else:
            output.write_text(f"{text}\n", encoding="utf-8")
