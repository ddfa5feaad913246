"""Facets and costs of a scheme, as records name them; `bnsuite.facets` finds them."""

FACETS: dict[str, str] = {
    "batch-independent": "in training, what an example gives does not depend on the others of its minibatch",
    "batch-1": "one example trains it: the gradients are finite, and those of hidden weights not all 0",
    "train-eval-agreement": "evaluation mode gives what training mode gives",
    "per-position": "the normalizer's output changes only at positions at which its input does",
    "scale-invariant": "the normalizer gives N(a x) = N(x) for a > 0, to 1 % (its ε)",
    "shift-invariant": "the normalizer gives N(x + c) = N(x) for one c added to all, to 1 % (its ε)",
    "mean-centering": "at the start, normalized channels, or normalized examples, have mean 0",
    "stackable": "many networks train as one, with the steps that each takes alone",
    "breaks-contract": "fails `bnsuite check`; its numbers may not be comparable",
    "unchecked": "given from Python, and not held to the contract by `bnsuite check`",
    "own-gradient": "the gradient that it hands back is not that of its output",
    "residual": "there is a residual path around each layer",
    "post-norm": "the normalizer stands on the residual path, after the addition",
    "own-init": "it starts from weights of its own",
    "own-activation": "it brings an activation of its own",
    "weight-parametrization": "hidden weights are a function of other parameters",
}
"""Facet → what it says of a scheme."""

COSTS: dict[str, str] = {
    "parameters per channel": "numbers that a layer learns for each of its channels",
    "state per channel": "numbers that a layer keeps for each of its channels and does not learn",
    "operations per element": "elementary operations for each activation, in a forward pass in training",
    "operations per weight": "elementary operations for each weight, in a forward pass in training",
}
"""Cost, with its unit in the name → what it counts, in excess of scheme `none`, whose costs are 0."""
