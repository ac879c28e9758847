"""The stages of a fit, as progress bars show them and scikit-learn's callbacks are told."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

from tqdm.auto import tqdm

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9 has no callbacks: bars are all there is
    CallbackSupportMixin, with_callbacks = object, lambda method: method

__all__ = ["CallbackSupportMixin", "Fit", "with_callbacks"]

_N_TASKS = 50  # into which a stage is divided: as often callbacks are called


Attributes = dict[str, Any]


class Fit:
    """One fit of an estimator, as it is watched: a `Watch` of the algorithms.

    Parameters
    ----------
    estimator : estimator
        Who is fitted; owns the callbacks.
    X, y : array-like
        Data, as the callbacks are to see them.
    n_stages : int
        How many stages there will be.
    attributes : callable (map) -> dict
        Returns what would make the estimator a fitted one with this map.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        n_stages: int,
        attributes: Callable[[Any], Attributes | None],
    ):
        self.estimator, self.attributes = estimator, attributes
        self.data = {"estimator": estimator, "X": X, "y": y}
        begin = getattr(estimator, "_init_callback_context", _Silence)
        self.context = begin(max_subtasks=n_stages)
        self.path = ""

    def __enter__(self) -> Self:
        """Begin."""
        self.context.call_on_fit_task_begin(**self.data)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Tell that the estimator is fitted."""
        if error is None:
            self.context.call_on_fit_task_end(**self.data, reconstruction_attributes={})

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., bool]]:
        """Open a stage, of `total` equal pieces of work."""
        with Stage(self, name, total) as stage:
            yield stage.advance

    @contextmanager
    def nested(self, name: str, n_stages: int) -> Iterator[Fit]:
        """Open a stage that has stages inside."""
        inner = copy.copy(self)
        inner.context = self.context.subcontext(task_name=name, max_subtasks=n_stages)
        inner.path = f"{self.path}{name} "
        inner.attributes = lambda _: None  # a part does not make the whole fitted
        inner.context.call_on_fit_task_begin(**self.data)
        yield inner
        inner.context.call_on_fit_task_end(**self.data)


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
        self.fit, self.total, self.done = fit, total, 0
        self.size = math.ceil(total / _N_TASKS)
        self.n_tasks, self.n_ended = math.ceil(total / self.size), 0
        self.context = fit.context.subcontext(task_name=name, max_subtasks=self.n_tasks)
        self.task: Any = None
        title = f"{type(fit.estimator).__name__} {fit.path}{name}"
        self.bar = tqdm(desc=title, total=total, disable=not fit.estimator.verbose)

    def __enter__(self) -> Self:
        """Begin."""
        self.context.call_on_fit_task_begin(**self.fit.data)
        self._begin_task()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End, early or not."""
        self.bar.close()
        if error is None:
            if self.task is not None:
                self._end_task()
            self.context.call_on_fit_task_end(**self.fit.data)

    def advance(self, n: int = 1, snapshot: Callable[[], Any] | None = None) -> bool:
        """Tell that n more pieces are done; `snapshot` makes the map so far, if it can.

        Returns
        -------
        bool
            Whether a callback wants the stage to stop.
        """
        self.bar.update(n)
        self.done += n
        stop = False
        while self.n_ended < self._n_finished():
            if self.task is None:  # although a callback wanted to stop
                self._begin_task()
            stop = self._end_task(snapshot) or stop
            if self.n_ended < self.n_tasks and not stop:
                self._begin_task()
        return stop

    def _n_finished(self) -> int:
        return self.n_tasks if self.done >= self.total else self.done // self.size

    def _begin_task(self) -> None:
        self.task = self.context.subcontext()
        self.task.call_on_fit_task_begin(**self.fit.data)

    def _end_task(self, snapshot: Callable[[], Any] | None = None) -> bool:
        task, self.task = self.task, None
        self.n_ended += 1

        def attributes() -> Attributes | None:
            learned = None if snapshot is None else snapshot()
            return None if learned is None else self.fit.attributes(learned)

        so_far = None if snapshot is None else attributes
        return task.call_on_fit_task_end(**self.fit.data, reconstruction_attributes=so_far)


class _Silence:
    """A context of scikit-learn's callbacks where there are none."""

    def __init__(self, **_: Any):
        pass

    def subcontext(self, **_: Any) -> _Silence:
        return self

    def call_on_fit_task_begin(self, **_: Any) -> None:
        pass

    def call_on_fit_task_end(self, **_: Any) -> bool:
        return False
