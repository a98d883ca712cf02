"""Reads, prints and compares textprotos; nothing here knows a message by name.

`google.protobuf.text_format` parses. Its errors are terse, and it does not report where
a valid field stands, so `scan` walks the same tokens first: it reports unknown fields,
wrong types and unknown enum values, and records where each field was set.
Messages may hold scalars, strings, enums and messages, each at most once.
"""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import descriptor as descriptor_lib
from google.protobuf import message as message_lib
from google.protobuf import text_format

from cmt.errors import InputError

Field = descriptor_lib.FieldDescriptor
# (is_signed, is_long) of text_format.ParseInteger, and what a user may write.
_INTEGERS = {
    Field.CPPTYPE_INT32: (True, False, "a whole number of 32 bits"),
    Field.CPPTYPE_INT64: (True, True, "a whole number of 64 bits"),
    Field.CPPTYPE_UINT32: (False, False, "a whole number of 32 bits, not negative"),
    Field.CPPTYPE_UINT64: (False, True, "a whole number of 64 bits, not negative"),
}
_FLOATS = (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE)
_BRACKETS = {"{": "}", "<": ">"}


class UnknownField(InputError):
    """A change, `path=value`, of a field that does not exist."""

    def __init__(self, assignment: str, reason: str):
        super().__init__(f"--set {assignment}: {reason}")
        self.assignment = assignment


def nearest(name: str, choices: Sequence[str]) -> str:
    """Returns "; did you mean 'X'?", or else a list of the choices."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from: {', '.join(choices)}"


def is_message(field: Field) -> bool:
    """True where the field holds a message."""
    return field.cpp_type == Field.CPPTYPE_MESSAGE


def enum_names(field: Field) -> list[str]:
    """Returns the names a user may choose: all but the unspecified 0."""
    return [
        value.name
        for value in (field.enum_type.values if field.enum_type else ())
        if not (value.number == 0 and value.name.endswith("_UNSPECIFIED"))
    ]


def leaf_paths(descriptor: descriptor_lib.Descriptor) -> Iterator[tuple[str, Field]]:
    """Yields the dotted path and field of every leaf, in declaration order."""
    for field in descriptor.fields:
        if is_message(field):
            for path, leaf in leaf_paths(field.message_type):
                yield f"{field.name}.{path}", leaf
        else:
            yield field.name, field


def unknown_field(
    name: str, descriptor: descriptor_lib.Descriptor, root: descriptor_lib.Descriptor
) -> str:
    """A message that a field does not exist, with the name probably meant."""
    message = f"{descriptor.name} has no field '{name}'"
    elsewhere = {leaf.name: path for path, leaf in reversed([*leaf_paths(root)])}
    here = [field.name for field in descriptor.fields]
    if name not in elsewhere and difflib.get_close_matches(name, here):
        return message + nearest(name, here)
    close = difflib.get_close_matches(name, elsewhere, n=2, cutoff=0.7)
    if close:
        meant = " or ".join(f"'{elsewhere[other]}'" for other in close)
        return f"{message}; did you mean {meant}?"
    return message + nearest(name, here)


def parse_value(field: Field, text: str) -> int | float | bool | str:
    """Parses one value as it stands in a textproto, quotes included.

    Args:
      field: a leaf.
      text: the value.

    Returns:
      The value, as the message stores it (enums: the number).

    Raises:
      ValueError: with the rule and what arrived.
    """
    kind = field.cpp_type
    try:
        if kind in _INTEGERS:
            rule = _INTEGERS[kind][2]
            signed, long = _INTEGERS[kind][:2]
            return text_format.ParseInteger(text, is_signed=signed, is_long=long)
        if kind in _FLOATS:
            rule = "a number"
            return text_format.ParseFloat(text)
        if kind == Field.CPPTYPE_BOOL:
            rule = "true or false"
            return text_format.ParseBool(text)
        if kind == Field.CPPTYPE_ENUM:
            rule = f"one of {', '.join(enum_names(field))}"
            return text_format.ParseEnum(field, text)
        rule = 'text in quotes, such as "a"'
        return _parse_string(text)
    except (ValueError, text_format.ParseError) as error:
        says = f"must be {rule}; got {text or 'nothing'}"
        if kind == Field.CPPTYPE_ENUM:
            close = difflib.get_close_matches(text.upper(), enum_names(field), n=1)
            says += f"; did you mean {close[0]}?" if close else ""
        raise ValueError(says) from error


def _parse_string(text: str) -> str:
    tokenizer = text_format.Tokenizer([text])
    value = tokenizer.ConsumeString()
    if not tokenizer.AtEnd():
        raise ValueError("more than one value")
    return value


class _Scanner:
    """Walks the tokens of a text by the fields of a message."""

    def __init__(self, text: str, root: descriptor_lib.Descriptor, source: str):
        self._tokens = text_format.Tokenizer(text.split("\n"))
        self._root = root
        self._source = source
        self.origins: dict[str, str] = {}

    def _here(self) -> str:
        """Returns "source:line:column" of the current token, both from 1."""
        error = self._tokens.ParseError("")
        return f"{self._source}:{error.GetLine()}:{error.GetColumn()}"

    def fields(
        self, descriptor: descriptor_lib.Descriptor, prefix: str = "", end: str = ""
    ) -> None:
        """Scans `name: value` and `name { ... }` up to the token `end`."""
        tokens = self._tokens
        while not tokens.LookingAt(end):
            here, name = self._here(), tokens.token
            if tokens.AtEnd():
                raise InputError(
                    f"{self._source}: the text ends inside '{prefix[:-1]}', opened at"
                    f" {self.origins[prefix[:-1]]}; add '{end}'"
                )
            field = descriptor.fields_by_name.get(name)
            if field is None and not name.replace("_", "a").isalnum():
                raise InputError(f"{here}: expected the name of a field; got {name}")
            if field is None:
                says = unknown_field(name, descriptor, self._root)
                raise InputError(f"{here}: {says}")
            path = prefix + name
            if path in self.origins:
                first = self.origins[path]
                raise InputError(f"{here}: '{path}' is already set at {first}")
            self.origins[path] = here
            tokens.NextToken()
            if is_message(field):
                self._message(field, path)
            else:
                self._leaf(field, path)
            if not tokens.TryConsume(","):
                tokens.TryConsume(";")

    def _message(self, field: Field, path: str) -> None:
        tokens = self._tokens
        tokens.TryConsume(":")
        end = _BRACKETS.get(tokens.token)
        if end is None:
            raise InputError(
                f"{self._here()}: '{path}' is a {field.message_type.name}: expected"
                f" {{ after its name; got {tokens.token or 'the end of the text'}"
            )
        tokens.NextToken()
        self.fields(field.message_type, f"{path}.", end)
        tokens.NextToken()

    def _leaf(self, field: Field, path: str) -> None:
        tokens = self._tokens
        if not tokens.TryConsume(":"):
            got = tokens.token or "the end of the text"
            raise InputError(f"{self._here()}: expected : after '{path}'; got {got}")
        here = self._here()
        try:
            parse_value(field, tokens.token)
        except ValueError as error:
            raise InputError(f"{here}: '{path}' {error}") from error
        is_text = field.cpp_type == Field.CPPTYPE_STRING
        tokens.NextToken()
        while is_text and tokens.token[:1] in ("'", '"') and not tokens.AtEnd():
            tokens.NextToken()


def scan(
    text: str, descriptor: descriptor_lib.Descriptor, source: str
) -> dict[str, str]:
    """Finds what is wrong with a textproto and where its fields stand.

    Args:
      text: the textproto.
      descriptor: of the message it is to be parsed into.
      source: name of the file, for messages.

    Returns:
      "source:line:column" of each field that is set, by dotted path.

    Raises:
      InputError: unknown field, wrong type, unknown enum value, wrong syntax.
    """
    scanner = _Scanner(text, descriptor, source)
    scanner.fields(descriptor)
    return scanner.origins


def parse(text: str, message: message_lib.Message, source: str) -> dict[str, str]:
    """Parses a textproto into `message`; returns where its fields stand (see `scan`).

    Raises:
      InputError: the text is no textproto of this message.
    """
    origins = scan(text, message.DESCRIPTOR, source)
    try:
        text_format.Parse(text, message)
    except (text_format.ParseError, ValueError) as error:
        raise InputError(f"{source}:{error}".replace("\n", " ")) from error
    return origins


def assign(message: message_lib.Message, assignment: str) -> str:
    """Sets one leaf from `path=value`, the value in textproto syntax.

    Text may come without quotes, as a shell strips them.

    Args:
      message: changed in place.
      assignment: such as "trainer.steps=200".

    Returns:
      The path.

    Raises:
      InputError: unknown path, or a value the field cannot take.
    """
    says = f"--set {assignment}"
    path, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not path:
        raise InputError(f"{says}: expected path=value, such as trainer.steps=200")
    *parents, name = path.split(".")
    owner, root = message, message.DESCRIPTOR
    for parent in parents:
        field = owner.DESCRIPTOR.fields_by_name.get(parent)
        if field is None:
            reason = unknown_field(parent, owner.DESCRIPTOR, root)
            raise UnknownField(assignment, reason)
        if not is_message(field):
            raise InputError(f"{says}: '{parent}' is a value and has no fields")
        owner = getattr(owner, parent)
    field = owner.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise UnknownField(assignment, unknown_field(name, owner.DESCRIPTOR, root))
    if is_message(field):
        inside = ", ".join(f"{path}.{leaf.name}" for leaf in field.message_type.fields)
        meant = _meant_inside(path, field.message_type, text)
        raise InputError(f"{says}: '{path}' is a message; {meant}set one of: {inside}")
    quoted = text[:1] in ("'", '"')
    try:
        is_bare = field.cpp_type == Field.CPPTYPE_STRING and not quoted
        value = text if is_bare else parse_value(field, text)
    except ValueError as error:
        raise InputError(f"{says}: '{path}' {error}") from error
    setattr(owner, name, value)
    return path


def _meant_inside(path: str, descriptor: descriptor_lib.Descriptor, text: str) -> str:
    """What to type for a message that got the value of one of its fields, or ""."""
    first = descriptor.fields[0]
    value = text.upper() if first.enum_type else text
    if first.cpp_type in _FLOATS or value in enum_names(first):
        with contextlib.suppress(ValueError):
            parse_value(first, value)
            return f"did you mean --set {path}.{first.name}={value}? Or "
    return ""


def value_text(field: Field, value: Any) -> str:
    """Returns a leaf's value in textproto syntax: shortest floats, enums by name."""
    out = io.StringIO()
    text_format.PrintFieldValue(field, value, out, as_utf8=True)
    return out.getvalue()


def leaves(message: message_lib.Message) -> Iterator[tuple[str, Field, Any]]:
    """Yields path, field and value of every leaf; the default where it is not set.

    The value is None where the field is neither set nor has a default.
    """
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_message(field):
            for path, leaf, inner in leaves(value):
                yield f"{field.name}.{path}", leaf, inner
        else:
            given = message.HasField(field.name) or field.has_default_value
            yield field.name, field, value if given else None


def resolve(message: message_lib.Message) -> None:
    """Sets every leaf that has a default, so that the message is complete."""
    for field in message.DESCRIPTOR.fields:
        if is_message(field):
            inner = getattr(message, field.name)
            inner.SetInParent()
            resolve(inner)
        elif field.has_default_value:
            setattr(message, field.name, getattr(message, field.name))


def to_text(message: message_lib.Message) -> str:
    """Prints every field, defaults included, in the order of declaration.

    Fields that are neither set nor have a default stand as comments. The text
    parses back to the resolved message.
    """
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: message_lib.Message, indent: str) -> Iterator[str]:
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_message(field):
            yield f"{indent}{field.name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif message.HasField(field.name) or field.has_default_value:
            yield f"{indent}{field.name}: {value_text(field, value)}"
        else:
            yield f"{indent}# {field.name}: not set"


def diff(
    a: message_lib.Message, b: message_lib.Message
) -> list[tuple[str, str | None, str | None]]:
    """Compares two messages of one type, leaf by leaf.

    Returns:
      (path, value of `a`, value of `b`) where they differ, in textproto syntax;
      None where a field is neither set nor has a default.
    """
    changed = []
    for (path, field, left), (_, _, right) in zip(leaves(a), leaves(b), strict=True):
        if left != right:
            texts = [None if v is None else value_text(field, v) for v in (left, right)]
            changed.append((path, *texts))
    return changed
