"""What all commands of lbctl have in common: `--config` and `--socket`, and a help that ends with examples."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import DEFAULT_FILE
from monitor.contract import client
from monitor.contract.orders import MAX_SLOT
from monitor.ctl.commands import which_monitor
from monitor.ctl.commands.which_monitor import Which


def _named(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    """Note in the context's `Which` what was named; before or after the command is the same."""
    which = context.obj
    assert isinstance(which, Which)
    if value is None:
        return
    setattr(which, str(parameter.name), value)
    if which.config is not None and which.socket is not None:
        raise click.UsageError("--config and --socket exclude each other", context)


def which_options() -> list[click.Parameter]:
    """--config and --socket."""
    path = click.Path(readable=False, path_type=Path)
    return [
        click.Option(
            ["--config"],
            type=path,
            metavar="FILE",
            expose_value=False,
            callback=_named,
            help=f"The monitor's lbadaptor.toml (default {DEFAULT_FILE}, or the only one beside it).",
        ),
        click.Option(
            ["--socket"],
            type=path,
            metavar="SOCKET",
            expose_value=False,
            callback=_named,
            help="The monitor's control socket, instead of its lbadaptor.toml.",
        ),
    ]


def sentence(about: str) -> str:
    """A text of a table as a sentence."""
    return f"{about[0].upper()}{about[1:]}."


class Command(click.Command):
    """`run` gets a `Which` and the values of the parameters, and returns the exit status.

    `about` is a line without a full stop; `more` further sentences. `which`: it takes --config and --socket.
    """

    def __init__(
        self,
        name: str,
        about: str,
        run: Callable[..., int],
        parameters: Sequence[click.Parameter] = (),
        examples: Sequence[str] = (),
        more: str = "",
        which: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(
            name,
            callback=click.pass_obj(run),
            params=[*parameters, *(which_options() if which else [])],
            help=f"{sentence(about)} {more}".strip(),
            short_help=about,
            **settings,
        )
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)


class Group(click.Group):
    """Commands with a name in common. `about` and `more` as of a `Command`."""

    def __init__(
        self, name: str, about: str, commands: Sequence[Command], examples: Sequence[str], more: str = ""
    ) -> None:
        super().__init__(
            name,
            params=which_options(),
            help=f"{sentence(about)} {more}".strip(),
            short_help=about,
            no_args_is_help=True,
            commands=commands,
        )
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)


def _write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    if examples:
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def slot_number(text: str) -> int:
    """The number of a slot, as a parameter's type. Raises BadParameter."""
    if text.isascii() and text.isdigit() and int(text) <= MAX_SLOT:
        return int(text)
    raise click.BadParameter(f"the number of a slot is wanted, such as 3 (see `lbctl status`), not {text!r}")


def slot(required: bool = True, kind: Callable[[str], int] = slot_number) -> click.Argument:
    """The argument SLOT."""
    metavar = "SLOT" if required else "[SLOT]"
    return click.Argument(["slot"], type=kind, required=required, metavar=metavar, shell_complete=_in_use)


def _in_use(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion: the slots in use; none where the monitor cannot be asked."""
    with contextlib.suppress(LbadaptorError, OSError):
        servers = client.ask(which_monitor.control_socket(context.obj))["appservers"]
        return [text for server in servers if (text := str(server["slot"])).startswith(begun)]
    return []


def flag(name: str, about: str, variable: str = "") -> click.Option:
    """An option without a value. `variable`: the parameter that gets it, where that is not `name`."""
    return click.Option([f"--{name}", *([variable] if variable else [])], is_flag=True, help=sentence(about))


def wait(about: str) -> click.Option:
    """The option --wait SECONDS."""
    return click.Option(["--wait"], type=_seconds, metavar="SECONDS", help=about)


def mount() -> click.Option:
    """The option --mount PATH."""
    return click.Option(
        ["--mount"], default="", metavar="PATH", help="Where the application is mounted (default: the whole site)."
    )


def write() -> click.Option:
    """The option --write FILE."""
    return click.Option(
        ["--write"],
        type=click.Path(readable=False, path_type=Path),
        metavar="FILE",
        help="Write FILE instead of printing; if nothing can be written, it stays as it is.",
    )


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise click.BadParameter(f"a number of seconds greater than 0 is wanted, not {text!r}")


def confirm(question: str) -> bool:
    """Ask a person; say that nothing was changed where the answer is no. Raises UsageError where nobody is there."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: --yes goes on without a question")
    if click.confirm(question):
        return True
    print("lbctl: nothing was changed", file=sys.stderr)
    return False
