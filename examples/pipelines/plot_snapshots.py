"""
Between two snapshots in time
=============================

A cell can be measured once: the measurement destroys it. What an experiment gives are
*snapshots*, one cloud of cells each day, and no cell appears twice. Where was the population in
between? Learn a flow from the first snapshot to the last, stop it half way, and compare with a
day that was left out.
"""

# %%
# Cells that branch
# -----------------
# An artificial tissue, so that the truth is known: cells start alike and commit to one of two
# fates, in a space of ten genes. Days 0 and 2 are seen, day 1 is not.

import matplotlib.pyplot as plt
import numpy as np

from sknsgf import NSGFSampler
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_particles, plot_trajectories

rng = np.random.default_rng(0)
genes = np.linalg.qr(rng.normal(size=(10, 10)))[0][:2]  # two programmes, each of ten genes


def snapshot(day, n_cells=1500):
    """Measure n cells on a day: position along the programmes, and noise in every gene."""
    fate = rng.choice([-1, 1], size=n_cells, p=[0.4, 0.6])
    age = day / 2 + 0.05 * rng.normal(size=n_cells)
    programme = np.column_stack([4 * age, 2.5 * fate * age])
    return programme @ genes + 0.25 * rng.normal(size=(n_cells, 10))


day_0, day_1, day_2 = (snapshot(day) for day in (0, 1, 2))

# %%
# Fit from the first to the last, look in between
# -----------------------------------------------
# `trajectory` gives every step with its time. With the straight schedule particles move at
# constant speed, so half of the time is half of the way.

flow = NSGFSampler(max_iter=1000, random_state=0).fit(day_0, day_2)
path = flow.trajectory(day_0)
middle = path.states[np.argmin(np.abs(path.times - 0.5))]

# %%
# Compare with the day that was left out
# --------------------------------------
# Beside the flow two answers that know nothing of transport: "it is still day 0" and "cells are
# mixed half and half". Last, what two halves of the true day are apart.

mixed = np.vstack([day_0[::2], day_2[::2]])
answers = {"day 0": day_0, "day 2": day_2, "a mixture of both": mixed, "flow, half way": middle}
for name, cells in answers.items():
    print(f"{name:18s} {energy_distance(cells, day_1):7.4f}")
print(f"{'floor':18s} {energy_distance(day_1[::2], day_1[1::2]):7.4f}")

# %%
# Look, in the plane of the two programmes
# ----------------------------------------

figure, axes = plt.subplots(
    1, 3, figsize=(13, 3.8), layout="constrained", sharex=True, sharey=True
)
for cells, name, colour in (
    (day_0, "day 0", "#8fb8de"),
    (day_1, "day 1, not shown to the flow", "0.75"),
    (day_2, "day 2", "#1f4e79"),
):
    plot_particles(cells @ genes.T, ax=axes[0], color=colour, label=name)
axes[0].legend(frameon=False, loc="lower left", markerscale=2)
axes[0].set_title("what was there")
plot_trajectories(path.states[:, :150] @ genes.T, ax=axes[1])
axes[1].set_title("learned paths")
plot_particles(day_1 @ genes.T, ax=axes[2], color="0.75", label="day 1")
plot_particles(middle @ genes.T, ax=axes[2], color="#d1495b", label="flow at t = 0.5")
axes[2].legend(frameon=False, loc="upper left", markerscale=2)
axes[2].set_title("half way, beside the truth")
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# What this can and cannot tell
# -----------------------------
# The flow takes the shortest way. Real cells need not: had they made a detour, the middle would
# be wrong however good both ends are. More snapshots are the cure, with one flow from each to
# the next.
