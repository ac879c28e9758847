"""
The flow without a network, and what blur does
==============================================

Before any network there is an exact flow: particles that descend the Sinkhorn divergence. One
function gives their velocity. Here we follow it by hand, look at what the resolution `blur`
changes, and compare it with what a network learned from many such flows.
"""

# %%
# Twenty lines, no network
# ------------------------
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
    """Positions of the particles at every step, and how many solutions did not converge."""
    x, y = torch.tensor(X), torch.tensor(Y)
    states, state, step_size, unsolved = [x], None, None, 0
    for k in range(n_steps):
        flow = sinkhorn_velocity(x, y, blur=blur, state=state, step_size=step_size)
        step_size = 1 / (n_steps - k)  # straight lines at constant speed
        x = x + step_size * flow.velocity
        state, unsolved = flow.state, unsolved + int(not flow.converged)
        states.append(x)
    return torch.stack(states).numpy(), unsolved


# %%
# Three resolutions
# -----------------
# With a fine blur every particle ends on a target point. With a coarse one it ends on the
# average of those within reach, and the curve loses its ends and its thickness.

blurs = (0.05, 0.5, 2.0)
figure, axes = plt.subplots(
    1, 4, figsize=(14, 4.6), layout="constrained", sharex=True, sharey=True
)
for blur, ax in zip(blurs, axes, strict=False):
    states, unsolved = follow(blur)
    plot_trajectories(states[:, :200], ax=ax)
    plot_particles(Y, ax=ax, color="#d1495b", s=3, alpha=0.4)
    ax.set_title(f"particles, blur {blur}")
    print(
        f"blur {blur}: energy distance {energy_distance(states[-1], Y):.4f}, unsolved {unsolved}"
    )

# %%
# What the network adds
# ---------------------
# The particles above can go nowhere else: a new point has no velocity, because it is not part
# of the cloud. A network trained on thousands of such particles gives a velocity to *every*
# point, so the flow can be applied to points that did not exist when it was fitted.

flow = NSGFSampler(max_iter=1500, random_state=0).fit(
    make_gaussian(5000, random_state=1), make_s_curve(5000, random_state=1)
)
path = flow.trajectory(X)
plot_trajectories(path.states[:, :200], ax=axes[3])
plot_particles(Y, ax=axes[3], color="#d1495b", s=3, alpha=0.4)
axes[3].set_title("learned flow, unseen points")
for ax in axes:
    ax.set(xticks=[], yticks=[])
print(f"learned: energy distance {energy_distance(path.states[-1], Y):.4f}")
plt.show()

# %%
# Why not the particles alone
# ---------------------------
# They are exact, and they memorise: with a fine blur they end *on* the 500 targets. The learned
# flow ends between them, where the distribution is. Use the particles to move one cloud once,
# and the estimator whenever new points may come.
