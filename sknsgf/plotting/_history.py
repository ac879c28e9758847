"""How the loss fell during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sknsgf._arguments import shown
from sknsgf._arrays import check_floats
from sknsgf.plotting._axes import INK, current_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_history(history: Any, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw how the loss fell during training.

    The loss of single batches is drawn pale and their running mean dark, on logarithmic scale;
    held-out losses, where there are any, are drawn as points, the lowest of them marked.

    Parameters
    ----------
    history : TrainingHistory or dict of str to TrainingHistory
        The `history_` of a fitted sampler; of a dict, each phase is drawn in its own colour.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot` for the running mean, over the defaults of
        this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on.

    Raises
    ------
    TypeError, ValueError
        If `history` is no history, has no iteration, or `ax` is no Axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.plotting import plot_history
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> flow = NSGFSampler(source="gaussian", max_iter=50, early_stopping=True).fit(X)
    >>> ax = plot_history(flow.history_)
    """
    phases = history if isinstance(history, dict) else {"": history}
    if not phases or not all(hasattr(phase, "validation_loss") for phase in phases.values()):
        raise TypeError(
            "history must be the history_ of a fitted sampler, a TrainingHistory or a dict of "
            f"them, got {shown(history)}."
        )
    losses = [
        check_floats(phase.loss, "history", ("n_iterations",)).astype(np.float64)
        for phase in phases.values()
    ]
    ax = current_axes(ax)
    for index, ((name, phase), loss) in enumerate(zip(phases.items(), losses, strict=True)):
        colour = f"C{index}" if name else INK
        label = f"{name.replace('_', ' ')}: " if name else ""
        _draw_losses(ax, phase, loss, label, {"color": colour} | kwargs)
    ax.set(xlabel="iteration", ylabel="loss", yscale="log")
    ax.legend()
    return ax


def _draw_losses(
    ax: Axes, history: Any, losses: NDArray, name: str, style: dict[str, Any]
) -> None:
    iterations = np.asarray(history.iter)
    ax.plot(iterations, losses, color=style["color"], alpha=0.2, linewidth=0.5)
    ax.plot(iterations, _running_mean(losses, len(losses) // 50), label=f"{name}batches", **style)
    if len(history.validation_iter):
        held_out = np.asarray(history.validation_iter), np.asarray(history.validation_loss)
        colour = style["color"] if name else "C1"
        ax.plot(*held_out, ".", color=colour, label=f"{name}held out")
        iteration, lowest = min(zip(*held_out, strict=True), key=lambda point: point[1])
        label = f"{name}lowest, {lowest:.3g}"
        ax.plot(iteration, lowest, "o", color=colour, fillstyle="none", label=label)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean over a window around every value, narrower at the ends."""
    total = np.concatenate([[0], np.cumsum(values)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - width, 0), np.minimum(index + width + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)
