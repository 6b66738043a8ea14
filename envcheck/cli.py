"""The command line: subcommands, exit codes, and how every one of them ends."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

from envcheck import errors, output

COMMANDS = {
    "doctor": "judge this host: what is wrong, and what to type (the command where none is given)",
    "facts": "write what was read from this host, nothing judged",
    "plan": "list the ordered steps from this host to a working stack",
    "explain": "name the cause of a log, and the fix",
    "env": "print export lines: CUDA_HOME, CUDNN_PATH, LD_LIBRARY_PATH ...",
    "diff": "show where recorded hosts differ",
    "gpu": "run kernels in the target interpreter and compare them with a reference",
    "rules": "list what the doctor knows, or show the page of one rule",
    "stacks": "list the stacks, or show the page of one",
}
RESERVED = {
    "fleet": "collect facts on each node (`python -m envcheck facts --output NODE.json`) and compare with diff",
}
EXIT_CODES = (
    "exit codes: 0 no error, 1 at least one error, 2 usage or an invalid file, "
    "3 nothing wrong found but not all could be judged, 70 a fault of envcheck itself, 130 interrupted"
)


HELP_WIDTH = 100


class Command(Protocol):
    """What a module of ``envcheck.commands`` offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and give the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and give its exit code; an error is one message on stderr, never a traceback."""
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _failed("interrupted", errors.INTERRUPTED, prefix="")
    except BrokenPipeError:
        output.reader_left()
        return errors.OK
    except Exception as error:  # noqa: BLE001  # told apart below; a fault of this program is no verdict on the host
        return _ended(error)
    return code


def _ended(error: Exception) -> int:
    """Say what went wrong and give the exit code."""
    if isinstance(error, errors.EnvcheckError):
        return _failed(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("envcheck"):
        return _lacking(error.name)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _failed(f"{place}{error.strerror or error}", errors.USAGE)
    return _crashed()


def _run(argv: list[str]) -> int:
    name, rest = command_of(argv)
    module: Command = importlib.import_module(f"envcheck.commands.{name}")
    parser = argparse.ArgumentParser(
        prog=f"envcheck {name}",
        description=COMMANDS[name],
        epilog=EXIT_CODES,
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    module.configure(parser)
    try:
        args = parser.parse_args(rest)
    except SystemExit:
        sys.stdout.flush()  # the help: a closed pipe is noticed here, not when the interpreter ends
        raise
    return module.run(args)


def _formatter(prog: str) -> argparse.HelpFormatter:
    # With a width given, argparse does not import shutil (and zlib, bz2, lzma: 2 ms) to ask the terminal for it.
    return argparse.HelpFormatter(prog, width=HELP_WIDTH)


def command_of(argv: list[str]) -> tuple[str, list[str]]:
    """Split the subcommand from its arguments; ``doctor`` where the first word is an option or there is none."""
    if not argv:
        return "doctor", []
    first, rest = argv[0], argv[1:]
    if first in COMMANDS:
        return first, rest
    if first in {"-h", "--help", "help"}:
        _exit(usage())
    if first in {"-V", "--version"}:
        from envcheck.version import version

        _exit(f"envcheck {version()}\n")
    if first in RESERVED:
        raise errors.EnvcheckError(f"{first} is not available yet", fix=RESERVED[first])
    if not first.startswith("-"):
        raise _unknown(first)
    return "doctor", argv


def _unknown(word: str) -> errors.EnvcheckError:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    listed = ", ".join(COMMANDS)
    hint = f"did you mean {near[0]}? There are {listed}" if near else f"there are {listed}"
    return errors.EnvcheckError(f"there is no command {word!r}", fix=hint)


def usage() -> str:
    """Give the help of the program as a whole."""
    lines = [f"  {name:<9}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m envcheck [COMMAND] [options]",
            "",
            "Find out what stands between a host and a working veRL + SGLang + Megatron on CUDA 12.4.",
            "",
            "commands:",
            *lines,
            "",
            "`python -m envcheck COMMAND --help` lists the options of a command; without a command: doctor.",
            EXIT_CODES,
            "",
        ]
    )


def _exit(text: str) -> NoReturn:
    from envcheck import data

    sys.stdout.write(data.as_started(text))
    sys.stdout.flush()
    raise SystemExit(errors.OK)


def _failed(message: str, code: int, *, prefix: str = "error: ") -> int:
    sys.stderr.write(f"{prefix}{_shown(message)}\n")
    return code


def _shown(message: str) -> str:
    from envcheck import data
    from envcheck.report.style import safe

    encoding = output.encoding_of(sys.stderr)
    return safe(data.as_started(message)).replace("→", "->").encode(encoding, "backslashreplace").decode(encoding)


def _lacking(module: str) -> int:
    what = f"this interpreter ({sys.executable}) has no module {module}, which envcheck needs"
    fix = "run the single file instead (nox -s pyz), or an interpreter that has it; --python names the one to judge"
    return _failed(f"{what}\n  → {fix}", errors.USAGE)


def _crashed() -> int:
    import traceback

    sys.stderr.write(_shown(traceback.format_exc()))
    return _failed("envcheck itself failed: please report the lines above", errors.FAULT)
