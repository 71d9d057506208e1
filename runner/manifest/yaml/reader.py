"""YAML bytes to plain values with positions; whatever could be misread is a problem.

The reference is PyYAML's parser in Python. libyaml only accelerates: it is trusted where the two are known to agree.
Whatever libyaml rejects, and whatever they may read differently (a tab, a directive, a tag, a `?` in a flow mapping),
goes to the reference. So results and positions do not depend on how PyYAML was built.
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

# What YAML forbids (both parsers would reject it), and what YAML takes for a line break although no editor does.
_FORBIDDEN = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TAB_OUTSIDE_COMMENT = re.compile(r"(?:\A|[\r\n])(?! *#)[^\r\n]*\t")
_DIRECTIVE = re.compile(r"(?:\A|[\r\n])%")
# UTF-32 first: its little-endian byte order mark starts with that of UTF-16.
_OTHER_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read(data: bytes, file: str, *, libyaml: bool = LIBYAML) -> Document:
    """Read YAML.

    Args:
        data: the file's bytes: UTF-8, with or without a byte order mark.
        file: the file's name in problems.
        libyaml: whether to try libyaml first; the result is the same without it.

    Raises:
        ManifestError: the text is not YAML or exceeds a limit. Problems that did not stop the parser are in the
            document's `problems` instead.
    """
    text = _decode(data, file)
    lines = Lines(text)
    # libyaml takes such a tab for a space, and is less strict after a directive.
    has_tab = "\t" in text and _TAB_OUTSIDE_COMMENT.search(text) is not None
    has_directive = "%" in text and _DIRECTIVE.search(text) is not None
    if libyaml and not has_tab and not has_directive:
        with contextlib.suppress(ParserDisagreementError, yaml.YAMLError):
            return Composer(text, file, lines, is_reference=False).compose()
    return _read_with_reference(text, file, lines)


def _read_with_reference(text: str, file: str, lines: Lines) -> Document:
    composer = Composer(text, file, lines, is_reference=True)
    try:
        return composer.compose()
    except yaml.MarkedYAMLError as error:
        raise composer.fatal_error(*messages.explain(error, text, lines.position)) from None
    except (ValueError, OverflowError):
        # PyYAML passes the number of a `\U` escape to chr() unchecked.
        hint = "write the character itself, or an escape up to U+10FFFF"
        message = "invalid escape: no such character"
        raise composer.fatal_error(composer.parser_offset(), message, hint) from None


def _decode(data: bytes, file: str) -> str:
    for mark, encoding in _OTHER_ENCODINGS:
        if data.startswith(mark):
            message = f"the file is encoded in {encoding}, not UTF-8"
            raise ManifestError((Problem(file, 0, 0, "", message, "save the file as UTF-8"),))
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().removeprefix("\ufeff")
        message = f"invalid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise _error_after(before, file, message, "save the file as UTF-8") from None
    if (match := _FORBIDDEN.search(text)) is not None:
        code = ord(match[0])
        escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what one byte holds
        hint = f'remove it, or write it as an escape in double quotes: "{escape}"'
        raise _error_after(text[: match.start()], file, f"the character U+{code:04X} is not allowed in YAML", hint)
    return text


def _error_after(before: str, file: str, message: str, hint: str) -> ManifestError:
    """A problem with the character that follows the text `before`."""
    line, column = Lines(before).position(len(before))
    return ManifestError((Problem(file, line, column, "", message, hint),))
