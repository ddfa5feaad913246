"""Goals that a network reaches without using its input, from the label counts alone."""

import math
from collections.abc import Sequence


def majority_reaches(task: str, part: str, counts: Sequence[int], target: float) -> str | None:
    """Explain that one class alone reaches an accuracy, max_k n_k / Σ n_k ≥ target; None: it does not.

    Args:
        task: name of the task, for the message.
        part: name of the part of the data, for the message.
        counts: n_k, number of labels of each class.
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
    """Explain that the labels' frequencies p reach a loss, −Σ p ln p ≤ loss_ratio · ln C; None: they do not.

    Args:
        task: name of the task, for the message.
        counts: number of labels of each of the C classes.
        loss_ratio: loss, in units of ln C.
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
    """Round down to three decimals, so that the limit in a message is strict enough."""
    return math.floor(number * 1000) / 1000
