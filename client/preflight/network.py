"""The way to the coordinator: reachable, who it is, its clock, its health, whether it knows the site."""

from __future__ import annotations

import datetime as dt
import http.client
import socket
import ssl
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from client.keygen import fingerprint_of, public_key_of
from client.preflight.keys import validity
from client.preflight.lines import Line, fail, ok, warn
from client.service import runs_already
from client.site import Coordinator, SiteConfig, host_of, port_of
from hymate.health import trouble

TIMEOUT_S = 10.0
AHEAD_S, BEHIND_S = 5.0, 15.0
"""Flower's coordinator refuses signatures this far from its own clock."""
NOTABLE_S = 2.5
"""Below this a difference may be the answer's own delay, and the date's whole seconds."""


def check_coordinator(coordinator: Coordinator, key: Path | None, now: dt.datetime) -> Iterator[Line]:
    """Everything that can be known from here; stops where the next question makes no sense."""
    host, port = host_of(coordinator.address), port_of(coordinator.address)
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as fault:
        yield fail(
            "reachable",
            f"{coordinator.address} is not ({fault.strerror or fault})",
            "correct `coordinator.address`, start the coordinator, or open the firewall for outgoing TCP",
        )
        return
    yield ok("reachable", f"{coordinator.address} takes connections")
    try:
        certificate, skew = _look(host, port)
    except (OSError, http.client.HTTPException, ValueError) as fault:
        yield fail("tls", f"{coordinator.address} does not speak TLS ({fault})", "correct the address")
        return
    yield validity(
        "server certificate", "the coordinator's certificate", certificate, now, "the coordinator renews it"
    )
    if skew is not None:
        yield clock(skew)
    trusted = _trust(coordinator, host, port)
    yield trusted
    if trusted.remedy:
        return
    if key is not None:
        yield _registration(coordinator, key)


def check_health(coordinator: Coordinator) -> Iterator[Line]:
    """The coordinator's gRPC health service, where the site file names it."""
    if coordinator.health_address is None:
        yield ok("health", "not asked: the site file has no `coordinator.health_address`")
        return
    found = trouble(coordinator.health_address, TIMEOUT_S)
    if not found:
        yield ok("health", f"{coordinator.health_address} says SERVING")
    else:
        yield fail(
            "health",
            found,
            "ask the coordinator, or correct `coordinator.health_address`",
        )


def check_own_health(site: SiteConfig) -> Iterator[Line]:
    """The address at which the running client will answer is free; or it runs and answers."""
    if site.health_address is None:
        return
    if runs_already(site):
        found = trouble(site.health_address, TIMEOUT_S)
        if not found:
            yield ok("own health", f"this site's client is running; {site.health_address} says SERVING")
        else:
            yield warn("own health", found, "see what the client says")
        return
    try:
        with socket.create_server((host_of(site.health_address), port_of(site.health_address))):
            yield ok("own health", f"{site.health_address} is free for health checks")
    except OSError as fault:
        yield fail(
            "own health",
            f"{site.health_address} cannot be used ({fault.strerror})",
            "end what uses it, or set another `health_address`",
        )


def _look(host: str, port: int) -> tuple[x509.Certificate, float | None]:
    """The certificate shown and how far this clock is ahead (s), read without trusting either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        shown = connection.sock.getpeercert(binary_form=True)
        connection.request("GET", "/health")
        date = connection.getresponse().getheader("Date")
    finally:
        connection.close()
    skew = None
    if date:
        skew = (dt.datetime.now(dt.UTC) - parsedate_to_datetime(date)).total_seconds() - 0.5
    return x509.load_der_x509_certificate(bytes(shown or b"")), skew


def clock(skew: float) -> Line:
    """How far this clock is ahead of the coordinator's (s; negative: behind)."""
    side = "ahead of" if skew > 0 else "behind"
    what = f"this machine is {abs(skew):.0f} s {side} the coordinator"
    remedy = "set the clock (NTP): the coordinator refuses signatures made at another time"
    if skew > AHEAD_S or skew < -BEHIND_S:
        return fail("clock", what, remedy)
    if abs(skew) > NOTABLE_S:
        return warn("clock", what, remedy)
    return ok("clock", f"within {NOTABLE_S:.1f} s of the coordinator's")


def _trust(coordinator: Coordinator, host: str, port: int) -> Line:
    """Whether the authority vouches for the coordinator under this name."""
    try:
        context = ssl.create_default_context(cafile=str(coordinator.ca))
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return ok("tls", f"{secured.version()}, the authority vouches for {host}")
    except ssl.SSLCertVerificationError as fault:
        return fail(
            "tls",
            f"the coordinator's certificate is not accepted: {fault.verify_message}",
            "get the authority's certificate (`coordinator.ca`) from the coordinator, or have theirs renewed",
        )
    except OSError as fault:
        return fail("tls", f"no secure connection ({fault})", "get `coordinator.ca` again")


def _registration(coordinator: Coordinator, key: Path) -> Line:
    """Whether the coordinator knows the site's key: asked without becoming a node.

    An activation with an impossible heartbeat is refused either way, for one reason or the other.
    """
    import httpx
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    fingerprint = fingerprint_of(public_key_of(key))
    private = form.load_ssh_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # public_key_of has looked
    client = FleetHttpClient.from_server_address(
        coordinator.address,
        False,
        coordinator.ca.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),
        ],
    )
    try:
        with client:
            client.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(private.public_key()), heartbeat_interval=-1.0
                )
            )
    except httpx.HTTPStatusError as answer:
        error = FlowerError.from_json(answer.response.text)
        code = None if error is None else error.code
        if code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
            return ok("registered", f"the coordinator knows the key {fingerprint}")
        if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return fail(
                "registered",
                f"the coordinator does not know the key {fingerprint}",
                f"send {key.with_suffix('.pub').name} to the coordinator for the study's `federation.sites`",
            )
        status = answer.response.status_code
        return warn("registered", f"not known: the coordinator answers {status}", "ask the coordinator")
    except httpx.HTTPError as fault:
        return warn("registered", f"not known ({type(fault).__name__})", "ask again")
    return warn("registered", "not known: the coordinator answers otherwise than flwr 1.41", "ask them")
