"""Is a gRPC health service serving? What container engines run as HEALTHCHECK.

    python -m hymate.health 127.0.0.1:9091     # exit code 0: serving; 1: not; 2: no such address

The protocol is gRPC's own (https://github.com/grpc/grpc/blob/master/doc/health-checking.md), so that
Kubernetes' gRPC probes and `grpc_health_probe` see the same. Needs grpcio-health-checking, and only here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hymate.errors import InputFault

TIMEOUT_S = 3.0


def trouble(address: str, timeout_s: float = TIMEOUT_S) -> str:
    """Why the service at HOST:PORT is not serving, in one line; empty where it is.

    Raises:
        InputFault: `address` is not HOST:PORT.
    """
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputFault(address or "the address", "is not HOST:PORT", "for example 127.0.0.1:9091")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # A proxy of the hospital's is for the world outside, not for this probe.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as fault:
            return f"{address}: {fault.code().name}: {' '.join(str(fault.details()).split())}"
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if status == "SERVING" else f"{address}: {status}"


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 where the one address given serves."""
    if len(arguments) != 1:
        print("usage: python -m hymate.health HOST:PORT", file=sys.stderr)
        return 2
    try:
        found = trouble(arguments[0])
    except InputFault as fault:
        print(fault, file=sys.stderr)
        return 2
    if found:
        print(found, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
