"""How every command of the project ends: a cause in one line, and an exit code that says which kind."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hymate.errors import InputFault

if TYPE_CHECKING:
    import typer

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def run_command(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run `app` as the console command `name` and return its exit code.

    | code | when                                                                            |
    |------|---------------------------------------------------------------------------------|
    | 0    | done                                                                            |
    | 2    | an `InputFault`, a wrong option, a path that cannot be written, a full disk:     |
    |      | one line on stderr, `name: what is wrong`                                       |
    | 130  | Ctrl-C: one line on stderr                                                      |
    | n    | the command raised `typer.Exit(n)`                                              |

    Any other exception is a defect of ours and keeps its traceback.

    Args:
        arguments: what follows the command's name; `sys.argv[1:]` when None.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name=name, standalone_mode=False)
    except InputFault as fault:
        message, code = str(fault), EXIT_INPUT
    except click.exceptions.NoArgsIsHelpError:
        message, code = "", EXIT_INPUT  # Typer has printed the help.
    except click.UsageError as fault:
        path = fault.ctx.command_path if fault.ctx else name
        message, code = f"{fault.format_message().rstrip('.')}; see '{path} --help'", EXIT_INPUT
    except click.ClickException as fault:
        message, code = fault.format_message(), fault.exit_code
    except OSError as fault:
        message, code = _of_the_machine(fault), EXIT_INPUT
    except (click.Abort, KeyboardInterrupt):
        message, code = "interrupted", EXIT_INTERRUPTED
    else:
        # Typer turns Ctrl-C into this code, without a word.
        message = "interrupted" if code == EXIT_INTERRUPTED else ""
    if message:
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _of_the_machine(fault: OSError) -> str:
    """A fault of disk or path in one line; any other is raised again."""
    path = fault.filename2 or fault.filename
    if fault.errno in NO_ROOM:
        return f"{path or 'the disk'}: {fault.strerror}; make room, or give another path"
    if path is None or fault.errno not in NO_PLACE:
        raise fault
    return f"{path}: {fault.strerror}; give another path, or change what is there"
