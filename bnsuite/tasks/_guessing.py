"""Goals that a network reaches without a look at its input, by the label counts alone."""

import math
from collections.abc import Sequence


def majority_reaches(task: str, part: str, counts: Sequence[int], target: float) -> str | None:
    """Say that one class alone reaches an accuracy, where its share max_k n_k / Σ n_k ≥ target; else None.

    Args:
        task, part: names for the message.
        counts: n_k, the labels of each class.
        target: accuracy.
    """
    share = max(counts) / sum(counts)
    if share < target:
        return None
    return (
        f"{share:.2%} of the {part} part are of class {counts.index(max(counts))}, so that {task} reaches "
        f"its target of {target:g} by guessing that class. Balance the classes, or ask for more: "
        f"--task {task} --set target=T, T above {-_down(-share)}."
    )


def frequencies_reach(task: str, counts: Sequence[int], loss_ratio: float) -> str | None:
    """Say that the labels' frequencies p reach a loss, where H(p) = −Σ p ln p ≤ loss_ratio · ln C; else None.

    Args:
        task: name for the message.
        counts: the labels of each of the C classes.
        loss_ratio: the loss, in units of ln C.
    """
    shares = [count / sum(counts) for count in counts if count]
    entropy = -sum(share * math.log(share) for share in shares)
    limit = loss_ratio * math.log(len(counts))
    if entropy > limit:
        return None
    return (
        f"the labels of the training part have an entropy of {entropy:.4g} nats, so that {task} reaches "
        f"its loss of {limit:.4g} by guessing their frequencies. Balance the classes, or ask for more: "
        f"--task {task} --set loss_ratio=R, R below {_down(entropy / math.log(len(counts)))}."
    )


def _down(number: float) -> float:
    """The number to three decimals, and never above it: a limit that is said must do."""
    return math.floor(number * 1000) / 1000
