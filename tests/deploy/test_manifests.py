"""The chosen plan as files for elsewhere: the same settings, enough memory, and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from trimtab.deploy.manifests import compose, kubernetes, settings
from trimtab.deploy.plan import Deployment, checked
from trimtab.domain.errors import InvalidInput
from trimtab.settings import Settings

COMPOSE = json.loads((Path(__file__).parent / "compose-spec.json").read_text("utf-8"))
"""The Compose Specification's own schema, of October 2021 (Apache-2.0)."""
KUBERNETES = ("1.30", "1.37")
CHOSEN = {"engine": "openvino", "weights": "int4", "kv": "u8", "slots": 8, "threads": 2, "batch": 512}


def plan(**more: object) -> Deployment:
    return checked({"targets": {"users": 8}, "budget": {"cores": 2}, "chosen": CHOSEN, **more})


def test_trimtab_itself_reads_the_environment_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRIMTAB_")]:
        monkeypatch.delenv(name)
    for name, value in settings(plan()).items():
        monkeypatch.setenv(name, value)
    found = Settings.load()
    assert (found.variant, found.parallel, found.threads, found.batch) == ("openvino/int4", 8, 2, 512)
    assert (found.context, found.host, found.expose) == (2048, "0.0.0.0", True)


def test_compose_runs_it_with_a_database_and_asks_for_the_password_where_it_is_run() -> None:
    found = compose(plan(), "registry.example/trimtab:0.1", 600_000_000)
    service = found["services"]["trimtab"]
    assert service["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "1450M"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "${TRIMTAB_DATABASE_PASSWORD:?" in service["environment"]["TRIMTAB_DATABASE_URL"]
    assert set(found["volumes"]) == {"data", "database"}
    assert compose(plan(interface={"faces": ["api"]}), "trimtab:1", 0)["services"]["trimtab"]["command"][1] == "serve"


def test_kubernetes_takes_the_database_from_a_secret_and_matches_its_own_labels() -> None:
    claim, deployment, service = kubernetes(plan(), "trimtab:0.1", 600_000_000)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (url,) = [e for e in container["env"] if e["name"] == "TRIMTAB_DATABASE_URL"]
    assert "value" not in url
    assert container["resources"]["limits"] == {"memory": "1450M"}
    assert container["securityContext"]["runAsNonRoot"]


def test_a_plan_without_a_choice_and_a_wrong_image_are_refused() -> None:
    with pytest.raises(InvalidInput, match="trimtab plan choose"):
        compose(checked({}), "trimtab:1", 0)
    for wrong in ("", "Trim tab", "x\n  privileged: true"):
        with pytest.raises(InvalidInput, match="no name of an image"):
            kubernetes(plan(), wrong, 0)


def in_yaml(values: Any) -> Any:
    """As it is read back from the file that is printed."""
    return yaml.safe_load(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.parametrize("faces", [["web", "api"], ["api"]])
def test_compose_files_keep_to_the_published_schema(faces: list[str]) -> None:
    found = in_yaml(compose(plan(interface={"faces": faces}), "registry.example/trimtab:0.1", 600_000_000))
    schema = jsonschema.Draft201909Validator(COMPOSE)
    assert found.pop("name") == "trimtab"  # the only part that is newer than that schema
    schema.validate(found)
    found["services"]["trimtab"]["port"] = found["services"]["trimtab"].pop("ports")
    with pytest.raises(jsonschema.ValidationError, match="port"):
        schema.validate(found)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_manifests_keep_to_the_published_schemas_strictly(version: str) -> None:
    found = [in_yaml(one) for one in kubernetes(plan(), "trimtab:0.1", 600_000_000)]
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)
    (container,) = found[1]["spec"]["template"]["spec"]["containers"]
    container["securitycontext"] = container.pop("securityContext")
    with pytest.raises(kubernetes_validate.ValidationError, match="securitycontext"):
        kubernetes_validate.validate(found[1], version, strict=True)
