"""
The flow without a network, and what blur does
==============================================

Before any network there is an exact flow: particles that descend the Sinkhorn divergence. One
function gives their velocity. Here we follow it by hand, look at what the resolution `blur`
changes, and compare it with what a network learned from many such flows.
"""

# %%
# A dozen lines, no network
# -------------------------
# The velocity of a particle is a difference of two averages: of the targets it is coupled to,
# minus that of the particles it is coupled to itself. The first pulls towards the target, the
# second keeps particles apart. :func:`~sknsgf.flow.sinkhorn_velocity` solves the two transport
# problems behind it. Its `state` is a warm start: the next problem is nearly the same.

import matplotlib.pyplot as plt
import torch

from sknsgf import NSGFSampler
from sknsgf.datasets import make_gaussian, make_s_curve
from sknsgf.flow import sinkhorn_velocity
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_particles, plot_trajectories

X, Y = make_gaussian(500, random_state=0), make_s_curve(500, random_state=0)


def follow(blur, n_steps=10):
    """Positions of the particles at every step."""
    x, y = torch.tensor(X), torch.tensor(Y)
    states, state, step_size = [x], None, None
    for k in range(n_steps):
        flow = sinkhorn_velocity(x, y, blur=blur, state=state, step_size=step_size)
        state, step_size = flow.state, 1 / (n_steps - k)  # straight lines at constant speed
        x = x + step_size * flow.velocity
        states.append(x)
    return torch.stack(states).numpy()


# %%
# Three resolutions
# -----------------
# `blur` is how finely the two clouds are compared. With a fine one every particle ends on a
# target point. With one of half the width of the curve, they end near it. With one as large as
# the clouds themselves, only their centres are compared: the cloud moves as a whole and keeps
# its shape.

paths = {f"particles, blur {blur}": follow(blur) for blur in (0.05, 0.5, 2.0)}

# %%
# What a network adds
# -------------------
# The particles above can go nowhere else: a new point has no velocity, because it is not part
# of the cloud. A network trained on thousands of such particles gives a velocity to *every*
# point, so the flow can be applied to points that did not exist when it was fitted. None of
# these 500 did.

flow = NSGFSampler(max_iter=1000, random_state=0).fit(
    make_gaussian(5000, random_state=1), make_s_curve(5000, random_state=1)
)
paths["learned flow, unseen points"] = flow.trajectory(X).states

# %%
# Look
# ----
# Pale: where points start. Dark: where they end. Red: the 500 targets.

figure, axes = plt.subplots(1, 4, figsize=(14, 5), layout="constrained", sharex=True, sharey=True)
for ax, (title, states) in zip(axes, paths.items(), strict=True):
    plot_particles(Y, ax=ax, color="#d1495b", s=8, alpha=0.35, zorder=0)
    plot_trajectories(states[:, :250], ax=ax)
    ax.set(title=title, xticks=[], yticks=[])
    print(f"{title:28s} energy distance {energy_distance(states[-1], Y):.4f}")
plt.show()

# %%
# Why not the particles alone
# ---------------------------
# They are exact, and they memorise: with a fine blur they end *on* the 500 targets, and the
# energy distance to these same targets is below what fresh data would have. The learned flow
# ends between them, where the distribution is. Use the particles to move one cloud once, and
# the estimator whenever new points may come.
