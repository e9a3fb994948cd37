from torch import Tensor

OPENMP: bool

def isa() -> str: ...
def lanes() -> int: ...
def available_isas() -> list[str]: ...
def force_isa(name: str) -> None: ...
def checkpoint_size(batch: int, length: int, channels: int, states: int) -> int: ...
def exponential(x: Tensor, y: Tensor, repetitions: int = 1) -> None: ...
def scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    y: Tensor,
    checkpoints: Tensor | None,
    threads: int,
) -> None: ...
def scan_backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    checkpoints: Tensor,
    du: Tensor,
    ddelta: Tensor,
    dA: Tensor,
    dB: Tensor,
    dC: Tensor,
    dD: Tensor | None,
    dz: Tensor | None,
    ddelta_bias: Tensor | None,
    threads: int,
) -> None: ...
def dropout(x: Tensor, bits: Tensor, threshold: int, scale: float, y: Tensor, threads: int) -> None: ...
def norm_forward(x: Tensor, weight: Tensor, epsilon: float, y: Tensor, threads: int) -> None: ...
def norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, epsilon: float, dx: Tensor, dweight: Tensor, threads: int
) -> None: ...
def attention_forward(
    qkv: Tensor, lengths: Tensor, heads: int, window: int, y: Tensor, logsum: Tensor, threads: int
) -> None: ...
def attention_backward(
    dy: Tensor,
    qkv: Tensor,
    lengths: Tensor,
    heads: int,
    window: int,
    y: Tensor,
    logsum: Tensor,
    dqkv: Tensor,
    threads: int,
) -> None: ...
def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, threads: int) -> None: ...
def linear_backward_input(dy: Tensor, weight: Tensor, dx: Tensor, threads: int) -> None: ...
def linear_backward_weight(
    dy: Tensor, x: Tensor, dweight: Tensor, dbias: Tensor | None, threads: int
) -> None: ...
def convolution_forward(x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, threads: int) -> None: ...
def convolution_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dx: Tensor,
    dweight: Tensor,
    dbias: Tensor | None,
    threads: int,
) -> None: ...
