"""YAML bytes into plain values with positions, or every surprise in them as a problem.

The reference is PyYAML's parser in Python; libyaml is an accelerator that is believed only where the two are known
to agree. Whatever libyaml refuses, and whatever is or makes the composer doubt (a tab, a directive, a tag, a `?` in a
flow mapping), is read by the reference, which has the last word. So the verdict and the position do not depend on how
PyYAML was built.
"""

from __future__ import annotations

import contextlib
import re

import yaml

from runner.core.errors import ManifestError, Problem
from runner.manifest.yaml import messages
from runner.manifest.yaml.composer import Composer, ParserDisagreementError
from runner.manifest.yaml.document import Document, Lines

LIBYAML: bool = yaml.__with_libyaml__

# What YAML forbids (both parsers would), and what it takes for a line break although no editor does.
_FORBIDDEN = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TAB_OUTSIDE_COMMENT = re.compile(r"(?:\A|[\r\n])(?! *#)[^\r\n]*\t")
_DIRECTIVE = re.compile(r"(?:\A|[\r\n])%")
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read(data: bytes, file: str, *, libyaml: bool = LIBYAML) -> Document:
    """Read YAML.

    Args:
        data: the file's bytes: UTF-8, a byte order mark allowed.
        file: its name, for problems.
        libyaml: whether to try libyaml first; the result is the same without.

    Raises:
        ManifestError: there is nothing to go on with: a text that is not YAML, or that is out of bounds. What
            can be read past is in the document's `problems` instead.
    """
    text = _decode(data, file)
    lines = Lines(text)
    if libyaml and not _has_structural_tab(text) and not _has_directive(text):
        with contextlib.suppress(ParserDisagreementError, yaml.YAMLError):
            return Composer(text, file, lines, trusted=False).compose()
    return _reference(text, file, lines)


def _reference(text: str, file: str, lines: Lines) -> Document:
    composer = Composer(text, file, lines, trusted=True)
    try:
        return composer.compose()
    except yaml.MarkedYAMLError as error:
        raise composer.fatal_error(*messages.explain(error, text, lines.position)) from None
    except (ValueError, OverflowError):
        # PyYAML hands the number of a `\U` escape to chr() unchecked.
        hint = "write the character itself, or an escape up to U+10FFFF"
        raise composer.fatal_error(composer.offset(), "this escape names no character", hint) from None


def _has_structural_tab(text: str) -> bool:
    """Whether a tab stands where libyaml takes it for a space and the reference does not."""
    return "\t" in text and _TAB_OUTSIDE_COMMENT.search(text) is not None


def _has_directive(text: str) -> bool:
    """Whether there is a `%YAML` line or the like, after which libyaml is less strict than the reference."""
    return "%" in text and _DIRECTIVE.search(text) is not None


def _decode(data: bytes, file: str) -> str:
    for mark, name in _WIDE_MARKS:
        if data.startswith(mark):
            raise ManifestError((Problem(file, 0, 0, "", f"the file is {name}, not UTF-8", "save it as UTF-8"),))
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ManifestError((_not_utf8(data, file, error.start),)) from None
    if (found := _FORBIDDEN.search(text)) is not None:
        raise ManifestError((_forbidden(text, file, found),))
    return text


def _not_utf8(data: bytes, file: str, at: int) -> Problem:
    before = data[:at].decode().removeprefix("\ufeff")
    line, column = Lines(before).position(len(before))
    message = f"byte {at} of the file (0x{data[at]:02x}) is not UTF-8"
    return Problem(file, line, column, "", message, "save the file as UTF-8")


def _forbidden(text: str, file: str, found: re.Match[str]) -> Problem:
    line, column = Lines(text[: found.start()]).position(found.start())
    code = ord(found[0])
    message = f"the character U+{code:04X} may not stand in a YAML file"
    escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what one byte holds
    return Problem(file, line, column, "", message, f'remove it, or write it as an escape in double quotes: "{escape}"')
