"""Connectors that a page adds: nothing is added that was not shown, and each says how it came and how it goes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from scripted_app import Desk, app_with
from trimtab.api.server import create_app
from trimtab.own_database import LOCAL_USER
from trimtab.store import people

TIDES = {
    "openapi": "3.1.0",
    "info": {"title": "Tide tables", "version": "1"},
    "servers": [{"url": "https://tides.example/v1"}],
    "paths": {
        "/tides": {"get": {"operationId": "list_tides", "responses": {"200": {"description": "Tides"}}}},
        "/berths": {"post": {"operationId": "reserve", "requestBody": {"$ref": "#/components/gone"}, "responses": {}}},
    },
    "components": {
        "securitySchemes": {
            "login": {
                "type": "oauth2",
                "flows": {
                    "authorizationCode": {
                        "authorizationUrl": "https://login.tides.example/authorize",
                        "tokenUrl": "https://login.tides.example/token",
                        "scopes": {"read": "Read"},
                    }
                },
            }
        }
    },
    "security": [{"login": ["read"]}],
}


async def test_an_api_is_imported_as_it_was_previewed_or_not_at_all(tmp_path: Path) -> None:
    async with app_with([], tmp_path, desk=Desk()) as app:
        key = await app.database.write(people.create_key, LOCAL_USER, "a test")
        transport = httpx.ASGITransport(create_app(app), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            wanted = {"document": json.dumps(TIDES), "name": "tides"}
            preview = (await client.post("/v1/connectors/openapi/preview", json=wanted)).json()
            assert preview["tools"] == ["tides.list_tides"]
            assert preview["left_out"][0]["what"] == "POST /berths"
            changed = {**wanted, "document": json.dumps({**TIDES, "servers": [{"url": "https://other.example"}]})}
            refused = await client.post("/v1/connectors/openapi", json={**changed, "seen": preview["document"]})
            assert refused.status_code == 409
            assert "changed since it was previewed" in refused.json()["error"]["message"]
            assert (await client.get("/v1/connectors/tides")).status_code == 404
            made = await client.post("/v1/connectors/openapi", json={**wanted, "seen": preview["document"]})
            assert made.status_code == 201, made.text
            entries = {one["name"]: one for one in (await client.get("/v1/connectors")).json()["connectors"]}
            assert {name: (one["kind"], one["sign_in"]) for name, one in entries.items()} == {
                "desk": ("python", ""),
                "tides": ("openapi", "browser"),
            }
            assert (await client.delete("/v1/connectors/openapi/tides")).status_code == 204
            assert (await client.get("/v1/connectors/tides")).status_code == 404
