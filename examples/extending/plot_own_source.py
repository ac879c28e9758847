"""
Your own source distribution
============================

A flow may start anywhere. The nearer its source is to the data, the less is left to learn. Any
object with a ``sample(n)`` method can be the source, scikit-learn's density estimators among
them.
"""

# %%
# Three sources for the same data
# -------------------------------
# Data: a checkerboard. The first source is noise. The second is a Gaussian mixture fitted to
# the data, which knows roughly where the squares are; `FrozenEstimator` keeps it fitted when
# the sampler is cloned, as in a search. The third is a class of our own, with knowledge that no
# fit would give.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from sknsgf import NSGFSampler
from sknsgf.datasets import make_checkerboard
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_particles

X = make_checkerboard(5000, random_state=0)


class Board:
    """Uniform on the whole board: right in everything but the colour of the squares."""

    def sample(self, n_samples=1, random_state=None):
        """Draw rows of shape (n_samples, 2)."""
        return check_random_state(random_state).uniform(-4, 4, size=(n_samples, 2))


mixture = GaussianMixture(16, random_state=0).fit(X)

# %%
# Fit
# ---
# The same small effort for all. `sample` draws from the source by itself.

sources = {"noise": "gaussian", "mixture": FrozenEstimator(mixture), "uniform board": Board()}
flows = {
    name: NSGFSampler(source=source, max_iter=800, random_state=0).fit(X)
    for name, source in sources.items()
}

# %%
# Compare
# -------
# Above: where each flow starts. Below: where it ends. From noise there is a long way to go, and
# corners of squares stay bridged. The mixture is so near that a short fit adds about as much
# error as it removes. The uniform board needs the shortest moves, and its outer edges are sharp
# from the beginning.

rng = np.random.RandomState(1)
starts = {
    "noise": X.mean(0) + flows["noise"].scale_ * rng.normal(size=(4000, 2)),
    "mixture": mixture.sample(4000)[0],
    "uniform board": Board().sample(4000, rng),
}
fresh = make_checkerboard(4000, random_state=1)
figure, axes = plt.subplots(2, 3, figsize=(10, 6.8), layout="constrained")
for column, (name, flow) in zip(axes.T, flows.items(), strict=True):
    ends = flow.transform(starts[name])
    for ax, rows in zip(column, (starts[name], ends), strict=True):
        plot_particles(rows, ax=ax, s=3)
        ax.set(xlim=(-5, 5), ylim=(-5, 5), xticks=[], yticks=[])
        ax.set_title(f"{name}: {energy_distance(rows, fresh):.4f}")
axes[0, 0].set_ylabel("start")
axes[1, 0].set_ylabel("end")
figure.suptitle("energy distance to fresh data")
plt.show()

# %%
# Seeds
# -----
# A source whose `sample` takes a `random_state`, as `Board` does, or that has an attribute of
# that name, as the mixture does, is seeded by the sampler: with ``random_state=0`` everything
# repeats. Without either it draws as it pleases.
