"""Faulty inputs of every operation, generated from the OpenAPI document: a new route has them without another line."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from service.domain.error_code import ErrorCode
from service.limits import MAX_BODY_BYTES

Document = dict[str, Any]
Schema = dict[str, Any]
JSON = {"content-type": "application/json"}

#: what is no number from 1 in the one spelling of it, as it stands in a URL
_NO_NUMBERS = (
    "", "0", "-1", "+1", "1_000", "01", "1.0", "1e3", "0x1", "%201", "1%20", "1%0A", "%00", "1%00", "x", "%D9%A1",
    "%EF%BC%91", "true", "null", "NaN", "%ff", "9223372036854775808", "99999999999999999999", "9" * 5_000,
)  # fmt: skip
_NO_INTEGERS = (
    '"1"', "true", "1.0", "1.5", "1e3", "1E0", "-0.0", "NaN", "Infinity", "-Infinity", "1e999", "01", "+1", "0x1",
    "[1]", "{}", "9" * 150, "-" + "9" * 150, "9" * 5_000,
)  # fmt: skip
_NO_STRINGS = ("1", "true", "[]", "{}", r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', '"\x00"', "'x'")
_NO_TIMES = (
    '""', '"tomorrow"', '"2030-01-01"', '"2030-01-01T00:00:00"', '"2030-02-30T00:00:00Z"', '"2030-01-01T25:00:00Z"',
    '"0001-01-01T00:00:00+14:00"', "1893456000",
)  # fmt: skip
_NO_OBJECTS = (
    b"", b" ", b"null", b"1", b'"x"', b"[]", b"[1]", b"{", b"}", b'{"a"', b"{,}", b"{'a':1}", b"\xff\xfe",
    b'{"\xff":1}', b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"{} x", b"{}{}", b"[" * 5_000, b'{"a":' * 3_000,
    b'{"a":NaN}', b"\x00",
)  # fmt: skip
_ODD_HEADERS = ("", "x", '"', '"x', '"x" "y"', ",", "\x7f", "\xe9", "\\", "W/", "-1", "9" * 5_000)
_UNKNOWN = {
    "coupon_id": ErrorCode.UNKNOWN_COUPON,
    "dead_letter_id": ErrorCode.UNKNOWN_DEAD_LETTER,
    "request_id": ErrorCode.UNKNOWN_REQUEST,
}
#: no test creates so many
_ABSENT = str(2**62)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND"})


class Case(NamedTuple):
    """A request with one fault, and the code of the problem that answers it."""

    method: str
    #: of the OpenAPI document
    template: str
    path: str
    code: ErrorCode
    content: bytes | None = None
    headers: dict[str, str] = JSON

    def __str__(self) -> str:
        content = "" if self.content is None else repr(self.content[:80])
        return f"{self.method} {self.path[:120]} {content} {self.headers}"


class _Operation(NamedTuple):
    """An operation of the document, and a path and a body that have no fault."""

    method: str
    template: str
    path: str
    parameters: list[Any]
    #: the schema of its body, and the example in the document; None: it has no body
    body: Schema | None
    example: dict[str, Any]

    def case(self, code: ErrorCode, path: str | None = None, content: bytes | None = None, **headers: str) -> Case:
        """Return a request with a valid body, or with `content`."""
        if content is None and self.body is not None:
            content = json.dumps(self.example).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Case(self.method, self.template, path or self.path, code, content, {**JSON, **named})


class BadInputs:
    """The faulty inputs of all operations of a document."""

    def __init__(self, document: Document, known: dict[str, str]) -> None:
        """`known` has a value of each parameter in a path that leads to something, or has its form at least."""
        self._document = document
        self._known = known
        self._operations = [
            self._operation(method.upper(), template, operation)
            for template, by_method in document["paths"].items()
            for method, operation in by_method.items()
        ]

    def _operation(self, method: str, template: str, described: Any) -> _Operation:
        content = described.get("requestBody", {}).get("content", {}).get("application/json")
        return _Operation(
            method,
            template,
            template.format_map(self._known),
            described.get("parameters", []),
            content and self._resolve(content["schema"]),
            content["example"] if content else {},
        )

    def _resolve(self, schema: Schema) -> Schema:
        name = schema.get("$ref", "").rpartition("/")[2]
        return self._document["components"]["schemas"][name] if name else schema

    def _kinds(self, schema: Schema) -> list[Schema]:
        """Return the schemas of which a value must have one."""
        return [self._resolve(kind) for kind in self._resolve(schema).get("anyOf", [schema])]

    def bodies(self) -> Iterator[Case]:
        """Bodies that are no JSON object of the documented form."""
        for operation in self._with_body():
            contents = [*_NO_OBJECTS, *_repeated_and_unknown(operation.example)]
            for name, schema in (operation.body or {})["properties"].items():
                contents += [_with_field(operation.example, name, value) for value in sorted(self._no_values(schema))]
            for name in (operation.body or {}).get("required", []):
                contents.append(
                    json.dumps({key: operation.example[key] for key in operation.example.keys() - {name}}).encode()
                )
            yield from (operation.case(ErrorCode.INVALID, content=content) for content in contents)

    def _with_body(self) -> Iterator[_Operation]:
        return (operation for operation in self._operations if operation.body is not None)

    def _no_values(self, schema: Schema) -> set[str]:
        """Return JSON texts that are no value of a schema."""
        kinds = [self._resolve(kind) for kind in self._kinds(schema)]
        wrong = set.intersection(*(set(_no_values_of(kind)) for kind in kinds if kind.get("type") != "null"))
        return wrong if any(kind.get("type") == "null" for kind in kinds) else wrong | {"null"}

    def media_types(self) -> Iterator[Case]:
        """Bodies that are not declared as JSON, or are encoded."""
        for operation in self._with_body():
            for kind in ("", "text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonx"):
                yield operation.case(ErrorCode.UNSUPPORTED_MEDIA_TYPE, content_type=kind)
            for encoding in ("gzip", "br", "deflate, gzip", "identity, gzip"):
                yield operation.case(ErrorCode.UNSUPPORTED_MEDIA_TYPE, content_encoding=encoding)

    def large_bodies(self) -> Iterator[Case]:
        """Bodies beyond the limit."""
        for operation in self._with_body():
            large = b" " * MAX_BODY_BYTES + json.dumps(operation.example).encode()
            yield operation.case(ErrorCode.REQUEST_ENTITY_TOO_LARGE, content=large)

    def paths(self) -> Iterator[Case]:
        """Ids of another spelling, and ids of nothing."""
        for operation in self._operations:
            for parameter in operation.parameters:
                if parameter["in"] != "path":
                    continue
                name = parameter["name"]
                is_number = parameter["schema"]["type"] == "integer"
                if is_number:
                    beyond = str(parameter["schema"]["maximum"] + 1)
                    for text in (*_NO_NUMBERS[1:], beyond):
                        yield operation.case(ErrorCode.INVALID, self._path(operation, name, text))
                if name in _UNKNOWN:
                    absent = [_ABSENT] if is_number else ["x", "A" * 60, "-" * 60, "%00", "%C3%A9", "%ff", "9" * 5_000]
                    for text in absent:
                        yield operation.case(_UNKNOWN[name], self._path(operation, name, text))

    def _path(self, operation: _Operation, name: str, text: str) -> str:
        return operation.template.format_map({**self._known, name: text})

    def queries(self) -> Iterator[Case]:
        """Values of parameters that are not of the documented form, and parameters that are sent twice."""
        for operation in self._operations:
            for parameter in operation.parameters:
                if parameter["in"] != "query":
                    continue
                for text in _no_parameters(parameter["schema"]):
                    yield operation.case(ErrorCode.INVALID, f"{operation.path}?{parameter['name']}={text}")
                value = parameter["schema"].get("enum", ["1"])[0]
                yield operation.case(
                    ErrorCode.INVALID, f"{operation.path}?{parameter['name']}={value}&{parameter['name']}={value}"
                )
            yield operation.case(ErrorCode.INVALID, f"{operation.path}?x=1&x=1")

    def headers(self) -> Iterator[Case]:
        """Values of documented headers that nobody means; `code` says nothing."""
        for operation in self._operations:
            for parameter in operation.parameters:
                if parameter["in"] == "header":
                    for text in _ODD_HEADERS:
                        valid = operation.case(ErrorCode.INVALID)
                        yield valid._replace(headers={**valid.headers, parameter["name"]: text})

    def methods(self) -> Iterator[Case]:
        """Methods that a path does not have."""
        for template, by_method in self._document["paths"].items():
            allowed = {method.upper() for method in by_method} | ({"HEAD"} if "get" in by_method else set())
            for method in sorted(_METHODS - allowed):
                path = template.format_map(self._known)
                yield Case(
                    method, template, path, ErrorCode.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(sorted(allowed))}
                )

    def valid(self) -> Iterator[Case]:
        """A request of each operation that has no fault of this kind; `code` says nothing."""
        return (operation.case(ErrorCode.FORBIDDEN) for operation in self._operations)


def _repeated_and_unknown(example: dict[str, Any]) -> Iterator[bytes]:
    """Yield the example cut off, followed by something, with an unknown field, with a field twice."""
    whole = json.dumps(example)
    name, value = next(iter(example.items()))
    yield from (text.encode() for text in (whole[:-1], f"{whole}x", f"{whole}{whole}", f"[{whole}]"))
    yield _with_field(example, "unknown", "1")
    yield _with_field(example, name.upper(), "1")
    yield f"{whole[:-1]},{json.dumps(name)}:{json.dumps(value)}}}".encode()
    yield f'{whole[:-1]},"\\u{ord(name[0]):04x}{name[1:]}":{json.dumps(value)}}}'.encode()


def _with_field(example: dict[str, Any], name: str, value: str) -> bytes:
    fields = [f"{json.dumps(key)}:{json.dumps(example[key])}" for key in example if key != name]
    return ("{" + ",".join([*fields, f"{json.dumps(name)}:{value}"]) + "}").encode()


def _no_values_of(schema: Schema) -> Iterable[str]:
    """Return JSON texts that are no value of a schema without alternatives."""
    match schema.get("type"):
        case "integer":
            bounds = [str(schema[name] + step) for name, step in (("minimum", -1), ("maximum", 1)) if name in schema]
            return [*_NO_INTEGERS, *bounds]
        case "array":
            items = [f"[{text}]" for text in _no_values_of(schema["items"])]
            return ["[]", json.dumps([1] * (schema["maxItems"] + 1)), "{}", "1", '"1"', "true", *items]
        case "boolean":
            return ['"true"', "1", "0", "[]", "{}"]
        case _ if "enum" in schema:
            return [*_NO_STRINGS, '""', '"x"', json.dumps(str(schema["enum"][0]).upper())]
        case _ if schema.get("format") == "date-time":
            return [*_NO_TIMES, *_NO_STRINGS]
        case "string":
            longer = [json.dumps("x" * (schema["maxLength"] + 1))] if "maxLength" in schema else []
            return [*_NO_STRINGS, *longer, *(['""'] if schema.get("minLength") else [])]
    raise NotImplementedError(schema)


def _no_parameters(schema: Schema) -> Iterable[str]:
    """Return values in a query that are not of a schema."""
    if schema["type"] == "integer":
        return [*_NO_NUMBERS, str(schema["maximum"] + 1)]
    if schema["type"] == "boolean":
        return ["", "x", "1", "True", "%00"]
    if "enum" in schema:
        return ["", "x", quote(schema["enum"][0].upper()), "%00", "%ff", "9" * 5_000]
    if schema.get("format") == "date-time":
        return ["", "x", "2030-01-01", "1893456000", "%00"]
    return ["%00", "%ff", *(text for text in _NO_NUMBERS if not _is_text(unquote(text), schema))]


def _is_text(text: str, schema: Schema) -> bool:
    length = range(schema.get("minLength", 0), schema.get("maxLength", len(text)) + 1)
    return len(text) in length and re.search(schema.get("pattern", ""), text) is not None
