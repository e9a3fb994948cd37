"""What the coordinator tells a SuperLink: let this key in, run this study, how is it, stop it.

Flower's Control API over its own client, in this process: its command line starts a new Python for
every question and shows neither a node's key nor a bundle's whole hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from server.failure import StudyFailure

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

Answer = TypeVar("Answer")


class Unreachable(StudyFailure):
    """The SuperLink did not answer."""


@dataclass(frozen=True)
class Bundle:
    """The Flower app bundle of a study: metadata that names the installed packages, no code."""

    content: bytes

    @property
    def sha256(self) -> str:
        """What a site compares with its policy's `approved_app`."""
        return hashlib.sha256(self.content).hexdigest()


def study_bundle() -> Bundle:
    """The bundle of this version; the same bytes on every machine and for every study."""
    from flwr.cli.build import build_fab_from_disk

    with as_file(files("deploy") / "app") as folder:
        return Bundle(build_fab_from_disk(folder))


@dataclass(frozen=True)
class Node:
    """A registered key as SuperLink sees it."""

    node_id: int
    online: bool


class Control:
    """A connection to one SuperLink. Raises `Unreachable` or `StudyFailure`, in one line."""

    def __init__(self, address: str, ca: Path | None) -> None:
        """Args: address: HOST:PORT; ca: authority of its certificate, None without TLS."""
        self.address = address
        self._ca = ca
        self._client: ControlHttpClient | None = None

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()

    def register(self, public_key: Path) -> Node:
        """Let the node with this OpenSSH public key in; a key that is in already stays as it is."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        key = key_bytes(public_key)
        known = self.nodes()
        if key in known:
            return known[key]
        answer = self._ask(lambda client: client.RegisterNode(RegisterNodeRequest(public_key=key)))
        return Node(int(answer.node_id), online=False)

    def nodes(self) -> dict[bytes, Node]:
        """Every registered node by its public key."""
        from flwr.proto.control_pb2 import ListNodesRequest

        answer = self._ask(lambda client: client.ListNodes(ListNodesRequest()))
        return {
            bytes(node.public_key): Node(int(node.node_id), online=node.status == "online")
            for node in answer.nodes_info
            if node.status != "unregistered"
        }

    def start(self, bundle: Bundle, run_config: Mapping[str, str | int]) -> int:
        """Submit a study; the id under which SuperLink runs it."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle.sha256, bundle.content, {})),
            override_config=user_config_to_proto(dict(run_config)),
        )
        answer = self._ask(lambda client: client.StartRun(request))
        if not answer.HasField("run_id"):
            raise StudyFailure(f"Flower did not take the study: {answer.note or 'no reason given'}")
        return int(answer.run_id)

    def verdict(self, run_id: int) -> tuple[str, str]:
        """A run's status ('finished:failed', say) and its details, as Flower tells them."""
        return self._runs(run_id).get(run_id, ("unknown", ""))

    def unfinished(self) -> list[int]:
        """Runs that SuperLink still holds to be under way."""
        return [run for run, (status, _) in self._runs(None).items() if not status.startswith("finished")]

    def stop(self, run_id: int) -> None:
        """End a run; one that has ended is left as it is."""
        from flwr.proto.control_pb2 import StopRunRequest

        if run_id in self.unfinished():
            self._ask(lambda client: client.StopRun(StopRunRequest(run_id=run_id)))

    def _runs(self, run_id: int | None) -> dict[int, tuple[str, str]]:
        from flwr.proto.control_pb2 import ListRunsRequest

        answer = self._ask(lambda client: client.ListRuns(ListRunsRequest(run_id=run_id)))
        return {
            int(number): (
                f"{run.status.status}:{run.status.sub_status}".rstrip(":"),
                str(run.status.details),
            )
            for number, run in answer.run_dict.items()
        }

    def _ask(self, question: Callable[[ControlHttpClient], Any]) -> Any:
        import httpx
        from flwr.supercore.error import FlowerError

        try:
            return question(self._connected())
        except httpx.HTTPStatusError as refused:
            told = FlowerError.from_json(refused.response.text)
            words = f"{told.message} {told.public_details or ''}".strip() if told else str(refused)
            raise StudyFailure(f"SuperLink at {self.address} refused: {_one_line(words)}") from None
        except httpx.HTTPError as fault:
            raise Unreachable(
                f"SuperLink at {self.address} did not answer: {_one_line(str(fault))}"
            ) from None

    def _connected(self) -> ControlHttpClient:
        if self._client is None:
            from flwr.supercore.control import ControlHttpClient
            from flwr.supercore.interceptors.http import RuntimeVersionHttpInterceptor

            self._client = ControlHttpClient.from_server_address(
                server_address=self.address,
                insecure=self._ca is None,
                root_certificates=str(self._ca) if self._ca else None,
                interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            )
        return self._client


def key_bytes(public_key: Path) -> bytes:
    """A node's OpenSSH public key in the form in which Flower compares keys.

    Raises:
        ValueError: it is no OpenSSH public key on a NIST curve.
        OSError: the file cannot be read.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_ssh_public_key(public_key.read_bytes())
    except UnsupportedAlgorithm as fault:
        raise ValueError(str(fault)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve key")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
