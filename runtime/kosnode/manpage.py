"""Writes the man page of kosctl from its parser, in the macros of man(7)."""

from __future__ import annotations

import argparse

from . import __version__
from .cli import leaves


def page(parser: argparse.ArgumentParser) -> str:
    """Return kosctl(8) as roff."""
    lines = [
        f'.TH KOSCTL 8 "" "kosctl {__version__}" "kOS Fleet"',
        ".SH NAME",
        "kosctl \\- install, patch and roll back the releases of a kOS node",
        ".SH SYNOPSIS",
        ".B kosctl",
        "[\\fIoptions\\fR] \\fIverb\\fR [\\fIarguments\\fR]",
        ".SH DESCRIPTION",
        _text(parser.description or ""),
        ".SH OPTIONS",
        *_options(parser),
        ".SH VERBS",
    ]
    for name, sub in leaves(parser):
        usage = " ".join(sub.format_usage().split()).removeprefix("usage: ")
        lines += [f'.SS "{_text(name)}"', _text(usage), ".PP", _text(sub.description or ""), *_options(sub)]
    lines += [".SH EXIT STATUS", _text(parser.epilog or ""), ".SH SEE ALSO", "systemctl(1), journalctl(1)"]
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or isinstance(action, argparse._SubParsersAction):
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        takes = "" if action.nargs == 0 else f" \\fI{_text(metavar)}\\fR"
        names = ", ".join(f"\\fB{_text(one)}\\fR" for one in action.option_strings)
        lines += [".TP", f"{names}{takes}" if names else takes.strip(), _text(action.help or "")]
    return lines


def _text(text: str) -> str:
    """Return text in which roff sees no command; a hyphen is one that can be copied."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
