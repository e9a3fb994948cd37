"""The Kubernetes manifests: valid, hardened, and a site reaches the coordinator and DNS alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from client.site import load_site, port_of
from server.study import load_study
from tests.deploy.files import DEPLOY, DOCKERFILES, MANIFESTS, USER, documents, exec_form, help_of, of_kind
from tests.deploy.files import script_call as call_of

RELEASE = "1.34"
COORDINATOR = DEPLOY / "kubernetes" / "coordinator.yaml"
HOSPITAL = DEPLOY / "kubernetes" / "hospital.yaml"
SECRETS = DEPLOY / "kubernetes" / "secrets.example.yaml"
both = pytest.mark.parametrize("path", [COORDINATOR, HOSPITAL], ids=lambda path: path.stem)


def pod_of(path: Path) -> dict[str, Any]:
    (workload,) = of_kind(path, "Job", "Deployment")
    return dict(workload["spec"]["template"])


def container_of(path: Path) -> dict[str, Any]:
    (container,) = pod_of(path)["spec"]["containers"]
    return dict(container)


def config_map(path: Path, name: str) -> dict[str, str]:
    (found,) = [entry for entry in of_kind(path, "ConfigMap") if entry["metadata"]["name"] == name]
    return dict(found["data"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_objects_are_what_kubernetes_accepts(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, RELEASE, strict=True)


def test_a_wrong_key_would_be_found() -> None:
    (workload,) = of_kind(HOSPITAL, "Deployment")
    workload["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(workload, RELEASE, strict=True)


@both
def test_the_pod_passes_the_restricted_standard(path: Path) -> None:
    (namespace,) = of_kind(path, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = pod_of(path)["spec"]
    assert (
        pod["securityContext"]
        | {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        == pod["securityContext"]
    )
    assert pod["automountServiceAccountToken"] is False
    assert container_of(path)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert set(container_of(path)["resources"]) == {"requests", "limits"}


@both
def test_probes_ask_the_port_where_health_listens(path: Path) -> None:
    (settings,) = [
        entry for entry in of_kind(path, "ConfigMap") if entry["metadata"]["name"] in ("study", "site")
    ]
    (text,) = settings["data"].values()
    content = yaml.safe_load(text)
    address = content.get("federation", content)["health_address"]
    assert address.startswith("0.0.0.0:"), "the kubelet asks from outside the pod"
    ports = [port["containerPort"] for port in container_of(path)["ports"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container_of(path)[probe]["grpc"] == {"port": port_of(address)}
    assert port_of(address) in ports


@both
def test_only_the_image_s_own_places_are_writable(path: Path) -> None:
    writable = [
        mount["mountPath"] for mount in container_of(path)["volumeMounts"] if not mount.get("readOnly")
    ]
    assert sorted(writable) == (["/runs", "/tmp"] if path == COORDINATOR else ["/tmp", "/var/lib/hymate"])


@both
def test_every_volume_claim_and_secret_exists(path: Path) -> None:
    pod = pod_of(path)["spec"]
    (namespace,) = of_kind(path, "Namespace")
    there = documents(path) + documents(SECRETS)
    assert all(
        entry["metadata"].get("namespace", namespace["metadata"]["name"]) == namespace["metadata"]["name"]
        for entry in documents(path)
    )
    mounts = {mount["name"] for mount in container_of(path)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}

    def exists(kind: str, name: str) -> bool:
        return any(
            entry["kind"] == kind
            and entry["metadata"]["name"] == name
            and entry["metadata"]["namespace"] == namespace["metadata"]["name"]
            for entry in there
        )

    for volume in pod["volumes"]:
        match volume:
            case {"configMap": {"name": name}}:
                assert exists("ConfigMap", name)
            case {"secret": {"secretName": name}}:
                assert exists("Secret", name)
            case {"persistentVolumeClaim": {"claimName": name}}:
                assert exists("PersistentVolumeClaim", name)
            case _:
                assert "emptyDir" in volume


def test_no_secret_value_is_in_a_file() -> None:
    for entry in of_kind(SECRETS, "Secret"):
        assert set(entry["data"].values()) == {""}
        assert "stringData" not in entry
    for path in (COORDINATOR, HOSPITAL):
        assert not of_kind(path, "Secret")
    assert not any("PRIVATE KEY" in path.read_text() for path in MANIFESTS)


def test_a_site_reaches_the_coordinator_and_dns_alone() -> None:
    (policy,) = of_kind(HOSPITAL, "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}, "every pod of the namespace"
    assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    assert policy["spec"]["ingress"] == []
    coordinator, names = policy["spec"]["egress"]
    (where,) = coordinator["to"]
    assert where["ipBlock"]["cidr"].endswith("/32")
    address = yaml.safe_load(config_map(HOSPITAL, "site")["site.yaml"])["coordinator"]["address"]
    assert coordinator["ports"] == [{"protocol": "TCP", "port": port_of(address)}]
    (resolver,) = names["to"]
    assert {"namespaceSelector", "podSelector"} == set(resolver), "both must hold"
    assert {port["port"] for port in names["ports"]} == {53}


def test_the_coordinator_calls_nobody_and_listens_on_one_port() -> None:
    (policy,) = of_kind(COORDINATOR, "NetworkPolicy")
    assert policy["spec"]["egress"] == []
    assert sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 9092}]


def test_selectors_match_the_pods() -> None:
    (service,) = of_kind(COORDINATOR, "Service")
    assert service["spec"]["selector"].items() <= pod_of(COORDINATOR)["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (named,) = [entry for entry in container_of(COORDINATOR)["ports"] if entry["name"] == port["targetPort"]]
    assert named["containerPort"] == port["port"]
    (deployment,) = of_kind(HOSPITAL, "Deployment")
    assert deployment["spec"]["selector"]["matchLabels"] == pod_of(HOSPITAL)["metadata"]["labels"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@both
def test_command_is_a_console_script_with_these_options(path: Path) -> None:
    side = "server" if path == COORDINATOR else "client"
    (image,) = [found for found in DOCKERFILES if found.stem == side]
    container = container_of(path)
    call = call_of([*container.get("command", exec_form(image, "ENTRYPOINT")), *container["args"]])
    assert all(word in help_of(call[0]) for word in call[1:] if word.startswith("--"))
    assert call[call.index("--config") + 1] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_study_and_site_file_are_valid_and_name_what_is_mounted(tmp_path: Path) -> None:
    for path, name in ((COORDINATOR, "study"), (HOSPITAL, "site")):
        (tmp_path / f"{name}.yaml").write_text(config_map(path, name)[f"{name}.yaml"])
    secrets = {entry["metadata"]["name"]: set(entry["data"]) for entry in of_kind(SECRETS, "Secret")}

    federation = load_study(tmp_path / "study.yaml").federation
    assert federation is not None
    tls = federation.tls
    assert tls.certificate is not None
    assert tls.key is not None
    assert {file.name for file in (tls.ca, tls.certificate, tls.key)} == secrets["coordinator-tls"]
    (keys,) = [
        entry for entry in of_kind(COORDINATOR, "ConfigMap") if entry["metadata"]["name"] == "site-keys"
    ]
    assert {entry.public_key.name for entry in federation.sites.values()} == set(keys["data"])
    assert {tls.ca.parent, tls.key.parent} == {tmp_path / "tls"}
    assert {entry.public_key.parent for entry in federation.sites.values()} == {tmp_path / "keys"}

    site = load_site(tmp_path / "site.yaml")
    assert site.coordinator is not None
    assert site.key is not None
    assert {site.key.name, site.coordinator.ca.name} == secrets["site-keys"]
    assert site.name in federation.sites
    assert site.coordinator.address == federation.public_address
    assert site.data == Path("/data")
    assert site.cache.is_relative_to("/var/lib/hymate")
    assert site.state.is_relative_to("/var/lib/hymate")
    assert site.threads <= int(container_of(HOSPITAL)["resources"]["limits"]["cpu"])
