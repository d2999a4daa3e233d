"""The chosen plan as files for elsewhere: the same settings, enough memory, and no secret."""

from __future__ import annotations

import os

import pytest

from trimtab.deploy.manifests import compose, kubernetes, settings
from trimtab.deploy.plan import Deployment, checked
from trimtab.domain.errors import InvalidInput
from trimtab.settings import Settings

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
