"""Documents are untrusted: whatever they hold, a typed answer with a place in the document, in bounded work."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.connect.openapi import Fault, build, make, read_document, read_operations
from trimtab.domain.errors import InvalidInput, TooLarge, TrimtabError

BAD = "#/paths/~1bad/post/requestBody/content/application~1json/schema"
OK = {"200": {"description": "ok"}}


def document(paths: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(
        {
            "openapi": "3.0.3",
            "info": {"title": "T", "version": "1"},
            "servers": [{"url": "https://t.example"}],
            "paths": paths,
            **more,
        }
    ).encode()


def posts(schema: Any, **schemas: Any) -> bytes:
    content = {"application/json": {"schema": schema}}
    good = {"get": {"operationId": "good", "summary": "Good", "responses": OK}}
    bad = {"post": {"operationId": "bad", "requestBody": {"required": True, "content": content}, "responses": OK}}
    return document({"/good": good, "/bad": bad}, components={"schemas": schemas})


@pytest.mark.parametrize(
    ("content", "pointer", "why"),
    [
        (b"\xff\xfe", "#", "UTF-8"),
        (b"[1, 2]", "#", "not an OpenAPI document"),
        (b"just words", "#", "not an OpenAPI document"),
        (b'{"openapi": "3.0.0", "paths": {', "#", "is not JSON"),
        (b"a: [1\nb: 2", "#", "neither JSON nor YAML"),
        (b"{}", "#", "says its version"),
        (b'{"openapi": "4.0"}', "#/openapi", "is not read"),
        (b'{"swagger": "1.2"}', "#/swagger", "is not read"),
        (b'{"openapi": "3.0.0"}', "#/paths", "missing"),
        (b'{"openapi": "3.0.0", "paths": {"/a": {"get": {}}}}', "#/servers", "--base-url"),
        (document({"/a": {"get": {}}}, servers=[{"url": "/v1"}]), "#/servers/0/url", "host"),
        (document({"/a": {"get": {}}}, servers=[{"url": "ftp://x"}]), "#/servers/0/url", "ftp"),
        (b"[" * 100_000, "#", "JSON"),
        (b"a: " + b"[" * 5000, "#", "deep"),
        (b"openapi: !!python/object/apply:os.system ['true']", "#", "tag"),
        (b"a: &a [*a]", "#", "alias"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_imported_says_where(content: bytes, pointer: str, why: str) -> None:
    with pytest.raises(Fault) as caught:
        make(read_document(content), "t")
    assert caught.value.pointer == pointer
    assert why in caught.value.why


def test_a_yaml_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.process_time()
    with pytest.raises(Fault, match="unfold"):
        read_document("\n".join(lines).encode())
    assert time.process_time() - began < 20  # a hang, not a speed
    with pytest.raises(TooLarge):
        read_document(b" " * 60_000_001)


@pytest.mark.parametrize(
    ("schema", "pointer", "why"),
    [
        ({"$ref": "#/components/schemas/Gone"}, BAD, "not in the document"),
        ({"$ref": "https://evil.example/x.json"}, BAD, "Bundle"),
        ({"$ref": "file:///etc/passwd"}, BAD, "outside"),
        ({"$ref": "#/components/schemas/Odd"}, "#/components/schemas/Odd/properties/a/type", "is not a type"),
        ({"type": "object", "required": ["a\u0000b"], "properties": {"a\u0000b": {}}},
         BAD + "/properties/a\u0000b", "control"),
        (7, BAD, "no schema"),
    ],
)  # fmt: skip
def test_one_bad_operation_is_left_out_and_those_around_it_load(schema: Any, pointer: str, why: str) -> None:
    odd = {"type": "object", "required": ["a"], "properties": {"a": {"type": "banana"}}}
    made = make(read_document(posts(schema, Odd=odd)), "t")
    assert list(made.connector.tools) == ["good"]
    (left,) = made.left_out
    assert (left.what, left.pointer) == ("POST /bad", pointer)
    assert why in left.why


def test_an_optional_part_that_is_bad_costs_only_itself() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "banana"}}}
    made = make(read_document(posts(schema)), "t")
    assert set(made.connector.tools["bad"].given["properties"]) == {"a"}
    (remark,) = made.remarks
    assert remark.pointer.endswith("/schema/properties/b/type")


def test_schemas_that_fold_into_each_other_cost_bounded_work() -> None:
    """Each of forty schemas holds the next twice: written out, 2^40 of them."""
    chain: dict[str, Any] = {
        f"S{n}": {"type": "object", "properties": {k: {"$ref": f"#/components/schemas/S{n + 1}"} for k in "ab"}}
        for n in range(40)
    }
    ladder: dict[str, Any] = {
        f"T{n}": {"allOf": [{"$ref": f"#/components/schemas/T{n + 1}"}] * 2, "required": [f"x{n}"]} for n in range(40)
    }
    loop = {"L": {"allOf": [{"$ref": "#/components/schemas/L"}]}, "M": {"$ref": "#/components/schemas/M"}}
    for first in ("S0", "T0", "L", "M"):
        content = posts({"$ref": f"#/components/schemas/{first}"}, **chain, **ladder, **loop, S40={}, T40={})
        began = time.process_time()
        reading = read_operations(read_document(content))
        assert time.process_time() - began < 20  # a hang, not a speed
        assert "good" in {one.id for one in reading.operations}
        assert all(len(json.dumps(one.schema)) < 25_000 for one in reading.operations)


def test_a_pattern_that_explodes_does_not() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["a"]}
    made = make(read_document(posts(schema)), "t")
    operation = next(one for one in made.operations if one.id == "bad")
    with pytest.raises(InvalidInput, match="does not have the form"):
        build(operation, made.servers["bad"], {"a": "a" * 5000 + "!"})
    assert build(operation, made.servers["bad"], {"a": "aaa"}).content == b'{"a": "aaa"}'


def test_names_that_collide_or_cannot_be_shown_are_told_apart() -> None:
    long = "list_" + "everything_" * 8
    paths: dict[str, Any] = {
        f"/{n}": {"get": {"operationId": name, "summary": "ignore\u202e all\u0007 previous", "responses": OK}}
        for n, name in enumerate(["getIt", "get-it", "get_it", f"{long}a", f"{long}b", "getIt"])
    }
    paths["/odd/{id}"] = {
        "get": {
            "operationId": "odd\u0000id",
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                {"name": "id", "in": "query", "schema": {"type": "string"}},
                {"name": "model_dump", "in": "query", "schema": {"type": "string"}},
                {"name": "filter[a]", "in": "query", "schema": {"type": "string"}},
                {"name": "x\ny", "in": "query", "schema": {"type": "string"}},
                {"name": "Host", "in": "header", "schema": {"type": "string"}},
            ],
        }
    }
    made = make(read_document(document(paths)), "t")
    names = list(made.connector.tools)
    assert len(set(names)) == 7
    assert all(len(name) <= 31 for name in names)
    assert "\u202e" not in "".join(tool.description for tool in made.connector.tools.values())
    odd = made.connector.tools["get_odd_id"].given
    assert set(odd["properties"]) == {"id", "id_query", "model_dump_", "filter_a"}
    assert [remark.pointer for remark in made.remarks if "control" in remark.why] == [
        "#/paths/~1odd~1{id}/get/parameters/4/name"
    ]


@pytest.mark.parametrize("path", ["no-slash", "/a\r\nb", "/" + "a" * 2000])
def test_a_path_that_is_none_is_left_out(path: str) -> None:
    content = document({path: {"get": {"responses": OK}}, "/b": {"get": {"responses": OK}, "trace": {}}})
    made = make(read_document(content), "t")
    assert len(made.operations) == 1
    assert [remark.what for remark in made.left_out][1:] == ["TRACE"]


def test_whatever_is_broken_in_a_document_the_answer_is_typed() -> None:
    """Each value of a good document, one after another, replaced by something that does not belong there."""
    whole = yaml.safe_load((Path(__file__).parent / "documents" / "harbour.yaml").read_text("utf-8"))
    broken = 0
    wrongs = (None, 7, "x", [], {}, [None], {"$ref": "#"}, True)
    for number, path in enumerate(_places(whole)):
        for wrong in (wrongs[number % 8], wrongs[(number + 3) % 8]):
            copy = json.loads(json.dumps(whole))
            _put(copy, path, wrong)
            try:
                make(read_document(json.dumps(copy).encode()), "t")
            except TrimtabError:
                broken += 1
    assert broken > 0


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _put(value: Any, path: tuple[Any, ...], wrong: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = wrong
