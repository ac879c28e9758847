"""
Checkerboard: how many steps?
=============================

A checkerboard has sharp edges, and nothing between its eight squares: hard for a smooth map of
noise. How many evaluations of the network does a sample need? And how good can it be at all?
"""

# %%
# One fit, any number of steps
# ----------------------------
# Steps of the integration are chosen when sampling. Fit once.

import matplotlib.pyplot as plt

from sknsgf import NSGFSampler
from sknsgf.datasets import make_checkerboard, make_task
from sknsgf.metrics import energy_distance, w2_distance
from sknsgf.plotting import plot_particles

X_source, X_target = make_task("checkerboard", 5000, random_state=0)
flow = NSGFSampler(random_state=0).fit(X_source, X_target)

# %%
# 1, 5, 10 and 100 steps
# ----------------------

counts = (1, 5, 10, 100)
samples = {n: flow.set_params(n_sampling_steps=n).sample(4000, random_state=0) for n in counts}

# %%
# The floor
# ---------
# Two independent draws of the *same* board are not at distance zero in W2: 1024 points cannot
# sit on top of 1024 others. What two draws of the data reach is the floor, and no sampler
# should be blamed for staying above zero. The energy distance used here is unbiased: its floor
# is zero, and chance makes it slightly negative half of the time.

fresh, other = (make_checkerboard(4000, random_state=seed) for seed in (1, 2))


def judge(points):
    """Both distances to fresh points."""
    return w2_distance(points[:1024], fresh[:1024]), energy_distance(points, fresh)


for name, points in {**samples, "floor": other}.items():
    w2, energy = judge(points)
    print(f"{name:>5}: W2 {w2:.3f}, energy distance {energy:7.4f}")

# %%
# Look
# ----
# One step already has the plan of the board. Five steps and a hundred look alike. The last
# panel is data.

figure, axes = plt.subplots(
    1, 5, figsize=(15, 3.3), layout="constrained", sharex=True, sharey=True
)
for ax, (n, points) in zip(axes, samples.items(), strict=False):
    plot_particles(points, ax=ax, s=3)
    ax.set_title(f"{n} step{'s' * (n > 1)}")
plot_particles(other, ax=axes[-1], s=3, color="0.4")
axes[-1].set_title("data: the floor")
for ax in axes:
    ax.set(xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), xticks=[], yticks=[])
plt.show()

# %%
# What to take away
# -----------------
# The simulated particles move at constant speed on nearly straight lines, so a few Euler steps
# follow them. Stray points between the squares do not disappear with more steps: they are what
# the network has not learned, and `max_iter` is the parameter for that.
