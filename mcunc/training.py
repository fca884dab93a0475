"""Training networks."""

import torch

from mcunc._checks import check_choice, check_count, check_positive


def fit_full_batch(network, loss, steps=500, learning_rate=0.01, optimiser="adam", watch=None):
    """Minimise a loss over a network's parameters, every step on all the data.

    Introduced in chapter 3.

    Parameters
    ----------
    network : torch.nn.Module, trained in place
    loss : callable network -> scalar tensor
    steps : int
    learning_rate : float
    optimiser : {"adam", "sgd", "lbfgs"}
        "sgd" is plain gradient descent; "lbfgs" uses a strong-Wolfe line search, for small smooth
        problems that are to be solved to many digits.
    watch : callable network -> float, optional
        Called after every step.

    Returns
    -------
    list of float
        `watch` after each step, or the loss before each step where `watch` is not given.

    Raises
    ------
    ValueError
        Where the loss is not finite (the network keeps the parameters it had before that step),
        is not a scalar that depends on the parameters, or there are none to train.
    """
    parameters = _trainable(network)
    if not callable(loss):
        raise ValueError("loss: expected a callable that takes the network and returns a scalar")
    if not (watch is None or callable(watch)):
        raise ValueError("watch: expected a callable that takes the network, or None")
    steps = check_count("steps", steps)
    learning_rate = check_positive("learning_rate", learning_rate)
    check_choice("optimiser", optimiser, ("adam", "sgd", "lbfgs"))
    update = _optimiser(parameters, optimiser, learning_rate)

    def closure():
        update.zero_grad()
        value = loss(network)
        if not (torch.is_tensor(value) and value.numel() == 1 and value.requires_grad):
            raise ValueError("loss: must return a scalar tensor that depends on the parameters")
        if not torch.isfinite(value):
            raise ValueError("loss: is not finite; lower learning_rate or scale the inputs")
        value.backward()
        return value

    history = []
    for _ in range(steps):
        before = [p.detach().clone() for p in parameters]
        try:
            value = update.step(closure)
        except ValueError:  # a line search moves the parameters before it evaluates the loss
            with torch.no_grad():
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
            raise
        with torch.no_grad():
            history.append(float(value if watch is None else watch(network)))
    return history


def _trainable(network):
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"network: expected a torch.nn.Module, got {type(network).__name__}")
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("network: has no parameters to train")
    return parameters


def _optimiser(parameters, name, learning_rate):
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate)
    return torch.optim.LBFGS(
        parameters, lr=learning_rate, max_iter=50, history_size=50,
        tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe",
    )  # fmt: skip
