"""
Watching a fit, looking at a flow
=================================

Is it still learning? Where do points go, and how fast? A progress bar, a callback and the display
classes answer; the displays follow those of scikit-learn: ``FlowDisplay.from_estimator(flow, X)``.
"""

# %%
# While it learns
# ---------------
# ``verbose=1`` shows progress bars. From version 1.9 on, scikit-learn has *callbacks*: objects
# that every estimator tells of its progress. Its `ScoringMonitor` scores the flow as it is at
# every fiftieth part of the training, here by the Wasserstein distance W2 between moved points
# and fresh ones.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.callback import ScoringMonitor

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians, make_moons
from sknsgf.metrics import w2_distance
from sknsgf.plotting import FlowDisplay, VelocityFieldDisplay, plot_history

X, Y = make_8gaussians(3000, random_state=0), make_moons(3000, random_state=0)
X_new, Y_new = make_8gaussians(1000, random_state=1), make_moons(1000, random_state=1)


def distance_to_target(flow, X, y):
    """Score new rows; the rows of the fit, which a callback is given, are not needed."""
    return w2_distance(flow.transform(X_new), Y_new)


monitor = ScoringMonitor(scoring={"W2": distance_to_target})
flow = NSGFSampler(max_iter=1000, early_stopping=True, random_state=0)
flow.set_callbacks(monitor).fit(X, Y)

# %%
# The loss is noisy and does not end at zero, as a network can only learn the mean of what
# minibatches do. What was held out tells whether more training would help, and the score
# whether it matters.

rows = [row for row in monitor.get_logs().data if row["task_name"] != "fit"]
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
plot_history(flow.history_, ax=axes[0])
iterations = [20 * (i + 1) for i in range(len(rows))]
distances = [row["W2"] for row in rows]
axes[1].plot(iterations, distances, color="#1f4e79", label="moved and fresh points")
floor = np.mean([w2_distance(make_moons(1000, random_state=seed), Y_new) for seed in range(2, 12)])
axes[1].axhline(floor, color="C1", linestyle="--", label="two draws of the target, mean of ten")
axes[1].set(xlabel="iteration", ylabel="W2", ylim=0)
axes[1].legend()
plt.show()

# %%
# What it learned
# ---------------
# The paths of new points, and the velocity field early and late. The flow is fast where points
# have far to go, and at every time it points along the straight line to where they end.

figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
FlowDisplay.from_estimator(flow, X_new[:300], ax=axes[0])
axes[0].set_title("paths")
for ax, t in zip(axes[1:], (0.0, 0.8), strict=True):
    VelocityFieldDisplay.from_estimator(flow, X_new, t=t, n_grid=20, ax=ax)
    ax.set_title(f"velocity at t = {t:g}")
plt.show()

# %%
# A display keeps what it has drawn, to change or to draw again.

display = FlowDisplay.from_estimator(flow, X_new[:300], colors="#d1495b", linewidths=0.3)
display.end_.set_sizes([12])
display.ax_.set_title("the same, in red")
plt.show()
