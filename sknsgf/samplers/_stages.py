"""The stages of a fit, as progress bars show them and scikit-learn's callbacks are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

from tqdm.auto import tqdm

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9 has no callbacks: bars are all there is
    CallbackSupportMixin, with_callbacks = object, lambda method: method

__all__ = ["CallbackSupportMixin", "Fit", "with_callbacks"]

_N_TASKS = 50  # into which a stage is divided: as often callbacks are called


Attributes = Callable[[], dict[str, Any] | None]


class Fit:
    """One fit of an estimator.

    Parameters
    ----------
    estimator : estimator
        Who is fitted; owns the callbacks.
    X, y : array-like
        Data, as the callbacks are to see them.
    n_stages : int
        How many stages there will be.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, n_stages: int):
        self.estimator = estimator
        self.data = {"estimator": estimator, "X": X, "y": y}
        begin = getattr(estimator, "_init_callback_context", _Silence)
        self.context = begin(max_subtasks=n_stages)
        self.context.call_on_fit_task_begin(**self.data)

    def stage(self, name: str, total: int) -> Stage:
        """Return the next stage, of `total` equal pieces of work."""
        return Stage(self, name, total)

    @contextmanager
    def nested(self, name: str, part: Any) -> Iterator[None]:
        """Fit a part inside, as a stage of its own."""
        context = self.context.subcontext(task_name=name)
        with context.propagate_callback_context(part):
            context.call_on_fit_task_begin(**self.data)
            yield
            context.call_on_fit_task_end(**self.data)

    def end(self) -> None:
        """Tell that the estimator is fitted."""
        self.context.call_on_fit_task_end(**self.data, reconstruction_attributes={})


class Stage(AbstractContextManager):
    """A stage of a fit, divided into tasks of equal size.

    Parameters
    ----------
    fit : Fit
        The fit it belongs to.
    name : str
        What is done.
    total : int
        Pieces of work to be done.
    """

    def __init__(self, fit: Fit, name: str, total: int):
        estimator = fit.estimator
        self.data, self.total, self.done = fit.data, total, 0
        self.size = math.ceil(total / _N_TASKS)
        self.n_tasks, self.n_ended = math.ceil(total / self.size), 0
        self.context = fit.context.subcontext(task_name=name, max_subtasks=self.n_tasks)
        self.task: Any = None
        title = f"{type(estimator).__name__} {name}"
        self.bar = tqdm(desc=title, total=total, disable=not estimator.verbose)

    def __enter__(self) -> Self:
        """Begin."""
        self.context.call_on_fit_task_begin(**self.data)
        self._begin_task()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End, early or not."""
        self.bar.close()
        if error is None:
            if self.task is not None:
                self._end_task()
            self.context.call_on_fit_task_end(**self.data)

    def advance(self, n: int = 1, so_far: Attributes | None = None) -> bool:
        """Tell that n more pieces are done; `so_far` makes the attributes fitted, if it can.

        Returns
        -------
        bool
            Whether a callback wants the stage to stop.
        """
        self.bar.update(n)
        self.done += n
        stop = False
        while self.n_ended < self._n_finished():
            stop = self._end_task(so_far) or stop
            if self.n_ended < self.n_tasks and not stop:
                self._begin_task()
        return stop

    def _n_finished(self) -> int:
        return self.n_tasks if self.done >= self.total else self.done // self.size

    def _begin_task(self) -> None:
        self.task = self.context.subcontext()
        self.task.call_on_fit_task_begin(**self.data)

    def _end_task(self, so_far: Attributes | None = None) -> bool:
        task, self.task = self.task, None
        self.n_ended += 1
        return task.call_on_fit_task_end(**self.data, reconstruction_attributes=so_far)


class _Silence:
    """A context of scikit-learn's callbacks where there are none."""

    def __init__(self, **_: Any):
        pass

    def subcontext(self, **_: Any) -> _Silence:
        return self

    def propagate_callback_context(self, part: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def call_on_fit_task_begin(self, **_: Any) -> None:
        pass

    def call_on_fit_task_end(self, **_: Any) -> bool:
        return False
