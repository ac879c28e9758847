"""
Eight Gaussians, in motion
==========================

What the flow does is best seen moving: press play. A cloud of noise splits into eight groups,
and no particle was told which group to join.
"""

# %%
# Fit
# ---
# With ``source="gaussian"`` the sampler learns to make rows like the ones it is given, from
# noise: ``fit(X)``, then ``sample(n)``, as with scikit-learn's mixtures.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_particles

X = make_8gaussians(5000, random_state=0)
flow = NSGFSampler(source="gaussian", max_iter=2000, random_state=0).fit(X)

# %%
# Follow some particles
# ---------------------
# `trajectory` returns the state at every step. Ten steps are enough to *sample*; for a smooth
# film we integrate the same velocity in forty. No new fit is needed for that.

flow.set_params(n_sampling_steps=40)
noise = X.mean(0) + flow.scale_ * np.random.default_rng(1).normal(size=(600, 2))
states = flow.trajectory(noise).states

# %%
# Play it
# -------
# Colour shows the direction in which a particle set out from the middle. Neighbours mostly stay
# neighbours: following the steepest descent of the Sinkhorn divergence, mass travels no further
# than it has to.

angle = np.arctan2(*(noise - X.mean(0)).T[::-1])
figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
plot_particles(X[:2000], ax=ax, color="0.85", s=4)
dots = ax.scatter(*states[0].T, c=angle, cmap="twilight_shifted", s=9)
ax.set(xlim=(-8, 8), ylim=(-8, 8), xticks=[], yticks=[])


def show(frame):
    """Move the particles to where they are at one step, and pause at the end."""
    step = min(frame, len(states) - 1)
    dots.set_offsets(states[step])
    ax.set_title(f"t = {step / (len(states) - 1):.2f}")


animation = FuncAnimation(figure, show, frames=len(states) + 10, interval=60)
plt.show()

# %%
# Is it the right distribution?
# -----------------------------
# A picture flatters. Count the particles in each group, and measure the energy distance to fresh
# points, which is zero on average for a perfect sampler.

flow.set_params(n_sampling_steps=None)  # back to ten steps
samples = flow.sample(4000)
group = np.round(np.arctan2(samples[:, 1], samples[:, 0]) / (np.pi / 4)).astype(int) % 8
fresh, other = make_8gaussians(4000, random_state=1), make_8gaussians(4000, random_state=2)
print("share of each group:", np.round(np.bincount(group, minlength=8) / len(samples), 3))
print(f"energy distance of the samples: {energy_distance(samples, fresh):.4f}")
print(f"of other data:                  {energy_distance(other, fresh):.4f}")
