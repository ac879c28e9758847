"""
Anatomy of NSGF++: two phases and the switch between them
=========================================================

`NSGFPlusPlus` is two flows, one behind the other. In the form of the paper,
``straight_from="source"``, there is a rule for passing from the first to the second as well. In
two dimensions `NSGFSampler` alone would do, but here every part can be seen.
"""

# %%
# The parts
# ---------
# 1. A **Sinkhorn flow** takes points half of the way to the target, in five steps.
# 2. A **straight flow** was trained on straight lines between random pairs of source and target
#    points. It knows how to finish, from any time t between 0 and 1.
# 3. A **time predictor** looks at a point and tells at which t it would lie on those lines. That
#    is where the point enters the straight flow, each at a time of its own.
#
# `sinkhorn_flow` is an ordinary `NSGFSampler`; all its parameters can be set, and searched over
# as ``sinkhorn_flow__blur``.

import matplotlib.pyplot as plt
import numpy as np

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import make_8gaussians
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_particles, plot_trajectories

X = make_8gaussians(5000, random_state=0)
model = NSGFPlusPlus(
    sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5, max_iter=1000),
    straight_from="source",
    source="gaussian",
    max_iter=1500,
    random_state=0,
).fit(X)

# %%
# Both phases, drawn
# ------------------
# The trajectory holds both: six states of the first phase, the last of which is where the second
# begins, then twenty-one. Times have a column per point, because each switches at its own.

noise = X.mean(0) + model.scale_ * np.random.default_rng(0).normal(size=(400, 2))
path = model.trajectory(noise)
switch = 6
figure, axes = plt.subplots(1, 3, figsize=(13, 4.3), layout="constrained")
plot_trajectories(path.states[:switch], ax=axes[0])
axes[0].set_title("phase 1: five Sinkhorn steps")
plot_trajectories(path.states[switch:], ax=axes[1])
axes[1].set_title("phase 2: twenty straight steps")
for ax in axes[:2]:
    plot_particles(X[:1500], ax=ax, s=3, color="#d1495b", alpha=0.25, zorder=0)
    ax.set(xticks=[], yticks=[], xlim=(-8, 8), ylim=(-8, 8))
axes[2].hist(model.switch_time_, bins=30, color="#1f4e79")
axes[2].axvline(0.5, color="#d1495b", label="where phase 1 was stopped")
axes[2].set(title="when points enter phase 2", xlabel="t", xlim=(0, 1))
axes[2].margins(y=0.15)
axes[2].legend(frameon=False, loc="upper left")
plt.show()

# %%
# What each phase contributes
# ---------------------------
# Phase 1 alone stops half way. Phase 2 goes on to the eight groups, but not all over each, as what
# phase 1 hands over is not quite what lies on its lines: the distance falls little. The count of
# evaluations includes the one of the time predictor.

fresh = make_8gaussians(4000, random_state=1)
start = X.mean(0) + model.scale_ * np.random.default_rng(1).normal(size=(4000, 2))
stages = {
    "noise": start,
    "after phase 1": model.sinkhorn_flow_.transform(start),
    "after phase 2": model.transform(start),
}
for name, points in stages.items():
    print(f"{name:14s} energy distance {energy_distance(points, fresh):.4f}")
print(f"evaluations a point: {path.nfe}")

# %%
# When the switch goes wrong
# --------------------------
# Let the first phase run to the end (``t_end=1``) and the predictor says "nearly there" for
# every point: the second phase has nothing left to do. A warning tells; the histogram of
# `switch_time_` is the place to look.
#
# Without a switch
# ----------------
# By default, ``straight_from="flow"``, lines start where the first phase ends, and lead to where
# optimal transport between the two clouds would take them. No predictor is needed, and points end
# nearer to the target.

without = NSGFPlusPlus(
    sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5, max_iter=1000),
    source="gaussian",
    max_iter=1500,
    random_state=0,
).fit(X)
path = without.trajectory(noise)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.3), layout="constrained")
for ax, states, title in (
    (axes[0], path.states[:switch], "phase 1: five Sinkhorn steps"),
    (axes[1], path.states[switch:], "phase 2: the rest of the way"),
):
    plot_trajectories(states, ax=ax)
    plot_particles(X[:1500], ax=ax, s=3, color="#d1495b", alpha=0.25, zorder=0)
    ax.set(title=title, xticks=[], yticks=[], xlim=(-8, 8), ylim=(-8, 8))
plt.show()
print(f"energy distance {energy_distance(without.transform(start), fresh):.4f}")
