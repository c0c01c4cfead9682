"""An exponential for training on x86 processors, where MLX's own is scalar and takes five times as long.

What is built on it, softmax, SwiGLU and cross-entropy, is as exact as with MLX's: the relative error of both is that of
rounding the argument, below 1e-6 for results above 1e-6.
"""

import platform
from typing import Any, cast

import mlx.core as mx

from .runtime import prepare

# 2^(f + 1) - 1 for f in (-1, 0], by ascending powers: the interpolation at Chebyshev's nodes.
COEFFICIENTS = (
    0.9999999972986203,
    1.3862940945953686,
    0.4804487109308185,
    0.11098207056819787,
    0.01916011690757686,
    0.0025514324343580506,
    0.0002187750477978218,
)
LOG2_E = 1.4426950408889634
# Smaller results would make denormal products, which are a hundred times slower. Nothing is lost beside a sum of 1.
SMALLEST = -64.0
MANTISSA = 2.0**23


def is_fast() -> bool:
    """Whether this exponential is the faster one here: on x86 processors."""
    return prepare().device == "cpu" and platform.machine().lower() in ("x86_64", "amd64")


def _bits(x: mx.array) -> mx.array:
    """The bits of e^x as integers: the exponent, and the mantissa by a polynomial."""
    power = mx.maximum(x * LOG2_E, SMALLEST)
    whole = power.astype(mx.int32)
    fraction = power - whole.astype(mx.float32)
    mantissa: Any = COEFFICIENTS[-1] * MANTISSA
    for coefficient in COEFFICIENTS[-2::-1]:
        mantissa = mantissa * fraction + coefficient * MANTISSA
    return cast(mx.array, (whole + 126) * int(MANTISSA) + mantissa.astype(mx.int32))


_compiled_bits = mx.compile(_bits, shapeless=True)
_compiled_bits_below = mx.compile(lambda x: _bits(-mx.abs(x)), shapeless=True)


def exponential(x: mx.array) -> mx.array:
    """e^x of float32 for x ≤ 0, and 2^-64 where that is smaller."""
    return cast(mx.array, _exponential(x))


@mx.custom_function
def _exponential(x: mx.array) -> mx.array:
    return mx.view(_compiled_bits(x), mx.float32)


@_exponential.vjp
def _exponential_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


def _small(gate: mx.array) -> mx.array:
    return mx.view(_compiled_bits_below(gate), mx.float32)


def _sigmoid(gate: mx.array, small: mx.array) -> mx.array:
    """1 / (1 + e^-gate), from `small` = e^-|gate|."""
    return mx.where(gate > 0, 1.0, small) / (1.0 + small)


def _swiglu_forward(gate: mx.array, x: mx.array, small: mx.array) -> mx.array:
    return _sigmoid(gate, small) * gate * x


def _swiglu_backward(gate: mx.array, x: mx.array, small: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    sigmoid = _sigmoid(gate, small)
    silu = sigmoid * gate
    return cotangent * x * (sigmoid + silu * (1.0 - sigmoid)), cotangent * silu


_compiled_forward = mx.compile(_swiglu_forward, shapeless=True)
_compiled_backward = mx.compile(_swiglu_backward, shapeless=True)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) · x of float32; the backward pass computes the sigmoid again instead of keeping it."""
    return cast(mx.array, _swiglu(gate, x))


@mx.custom_function
def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return _compiled_forward(gate, x, _small(gate))


@_swiglu.vjp
def _swiglu_vjp(primals: Any, cotangent: mx.array, output: mx.array) -> Any:
    gate, x = primals
    return _compiled_backward(gate, x, _small(gate), cotangent)


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Cross-entropy of float32 logits (..., vocabulary) and targets (...), as `nn.losses.cross_entropy`."""
    largest = mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    sums = exponential(logits - largest).sum(axis=-1)
    target = mx.take_along_axis(logits, targets[..., None], axis=-1)
    return mx.log(sums) + (largest - target).squeeze(-1)
