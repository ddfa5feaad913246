"""Checks of tensors that a computation would misread: sizes, labels, dtypes and devices."""

import torch
from torch import Tensor, nn


def check_examples(x: Tensor, y: Tensor, labels: bool = True, wait: bool = True) -> None:
    """Check that x and y hold N examples.

    Args:
        x: inputs (N, …).
        y: class indices (N,), or targets (N, …) if `labels` is False.
        labels: whether y holds class indices.
        wait: also check values of labels on a GPU, which waits for its work to finish.

    Raises:
        ValueError: sizes do not match, or labels are not class indices.
    """
    if x.dim() < 1 or y.dim() < 1 or len(x) != len(y):
        raise ValueError(
            f"x and y hold one row per example: got x {_size(x)} and y {_size(y)}. "
            "Give y as many rows as x has."
        )
    if labels:
        _check_labels(y, 1, "(N,), one label per example", wait)


def check_minibatches(x: Tensor, y: Tensor | None = None, labels: bool = True) -> None:
    """Check that x and y hold M minibatches of N examples each.

    Args:
        x: inputs (M, N, …).
        y: class indices (M, N), or targets (M, N, …) if `labels` is False; None: not checked.
        labels: whether y holds class indices.

    Raises:
        ValueError: sizes do not match, or labels are not class indices.
    """
    do = "Give a single minibatch as x[None], y[None]."
    if x.dim() < 3:
        raise ValueError(f"x is (M, N, …), M minibatches of N examples each: got {_size(x)}. {do}")
    if y is None:
        return
    if y.dim() < 2 or x.shape[:2] != y.shape[:2]:
        raise ValueError(
            f"x is (M, N, …) and y (M, N), M minibatches of N examples each: got x {_size(x)} and "
            f"y {_size(y)}. {do}"
        )
    if labels:
        _check_labels(y, 2, "(M, N), one label per example", wait=True)


def check_network(network: nn.Module, x: Tensor) -> None:
    """Check that some parameter of the network has the device of x, and its dtype if that is floating-point.

    Raises:
        ValueError: the device or the dtype differs.
    """
    parameters = list(network.parameters())
    devices = {p.device for p in parameters}
    if devices and x.device not in devices:
        own = ", ".join(sorted(map(str, devices)))
        raise ValueError(f"x is on {x.device}, the network on {own}: move one with .to({str(x.device)!r})")
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    if x.is_floating_point() and dtypes and x.dtype not in dtypes:
        own = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"x is {x.dtype}, the network {own}: convert one, such as network.to({x.dtype})")


def _check_labels(y: Tensor, dims: int, wanted: str, wait: bool) -> None:
    if y.dim() != dims:
        raise ValueError(f"y is {wanted}: got {_size(y)}. Give class indices, or a loss of your own.")
    if y.dtype != torch.long:
        raise ValueError(f"y holds class indices as torch.int64: got {y.dtype}. Use y.long().")
    readable = y.device.type == "cpu" or (wait and not y.is_meta)
    if readable and y.numel() and int(y.min()) < 0:
        raise ValueError(f"y holds class indices from 0: got {int(y.min())}. Leave such examples out.")


def _size(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
