"""What the student is asked to match."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import mse_loss


def velocity_matching_loss(network: nn.Module, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
    r"""Mean squared error of a velocity field on pool records.

    .. math:: \frac{1}{nd} \sum_i \|u_\theta(t_i, x_i) - u_i\|^2

    Parameters
    ----------
    network : Module
        Called as ``network(t, x)``.
    t : Tensor of shape (n,)
        Times.
    x : Tensor of shape (n, d)
        Positions.
    u : Tensor of shape (n, d)
        Velocities to match.

    Returns
    -------
    Tensor of shape ()
        The loss.

    Raises
    ------
    ValueError
        If the network predicts another shape than is to be matched.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069, the
       velocity field matching objective.

    Examples
    --------
    >>> import torch
    >>> still = lambda t, x: torch.zeros_like(x)
    >>> velocity_matching_loss(still, torch.zeros(3), torch.zeros(3, 2), torch.ones(3, 2))
    tensor(1.)
    """
    predicted = network(t, x)
    _check_shape(u, predicted, "u")
    return mse_loss(predicted, u)


def time_prediction_loss(network: nn.Module, t: Tensor, x: Tensor) -> Tensor:
    r"""Mean squared error of predicted times.

    .. math:: \frac1n \sum_i \bigl(t_\phi(x_i) - t_i\bigr)^2

    Parameters
    ----------
    network : Module
        Called as ``network(x)``.
    t : Tensor of shape (n,)
        Times to predict.
    x : Tensor of shape (n, d)
        Positions at those times.

    Returns
    -------
    Tensor of shape ()
        The loss.

    Raises
    ------
    ValueError
        If the network predicts another shape than is to be matched.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> half = lambda x: torch.full((len(x),), 0.5)
    >>> time_prediction_loss(half, torch.tensor([0.0, 1.0]), torch.zeros(2, 3))
    tensor(0.2500)
    """
    predicted = network(x)
    _check_shape(t, predicted, "t")
    return mse_loss(predicted, t)


def _check_shape(values: Tensor, predicted: Tensor, name: str) -> None:
    """Raise for what would be spread over all that is predicted."""
    if values.shape != predicted.shape:
        raise ValueError(
            f"{name} must have the shape of what the network predicts, {tuple(predicted.shape)}, "
            f"got {tuple(values.shape)}."
        )
