"""
Gaussian noise to two moons
===========================

The shortest path through the package: fit the flow that carries a Gaussian cloud to two
moons, draw new points, move points of our own, and look at the way they take.
"""

# %%
# Two clouds
# ----------
# All the sampler ever sees are these two arrays.

import matplotlib.pyplot as plt
import numpy as np

from sknsgf import NSGFSampler
from sknsgf.datasets import make_moons, make_task
from sknsgf.metrics import energy_distance, w2_distance
from sknsgf.plotting import plot_particles, plot_trajectories, plot_velocity_field

X_source, X_target = make_task("moons", 5000, random_state=0)

# %%
# Fit and sample
# --------------
# `fit` simulates particles that follow the Sinkhorn gradient flow from the source to the
# target and trains a network on their velocities. `sample` moves source points along the
# learned velocity; ten evaluations of the network are enough.

flow = NSGFSampler(random_state=0, verbose=1).fit(X_source, X_target)
X_sampled = flow.sample(1024)

# %%
# How good are the samples?
# -------------------------
# Even two independent samples of the *same* distribution are some distance apart. This floor,
# not zero, is what a distance between samples has to be compared with. The unbiased energy
# distance has its floor at zero.

X_test, X_other = make_moons(5000, random_state=1), make_moons(5000, random_state=2)
for n_steps in (1, 10, 100):
    flow.set_params(n_sampling_steps=n_steps)
    print(
        f"{n_steps:4d} steps: W2 {w2_distance(flow.sample(1024), X_test[:1024]):.3f}, "
        f"energy distance {energy_distance(flow.sample(5000), X_test):.4f}"
    )
print(
    f"     floor: W2 {w2_distance(X_other[:1024], X_test[:1024]):.3f}, "
    f"energy distance {energy_distance(X_other, X_test):.4f}"
)
flow.set_params(n_sampling_steps=None)

# %%
# Points of your own
# ------------------
# `transform` moves any source points, seen or unseen, and `inverse_transform` brings them
# back.

X_new = np.random.default_rng(0).normal(size=(200, 2))
X_moved = flow.transform(X_new)
X_back = flow.inverse_transform(X_moved)
print(f"there and back: off by {np.abs(X_back - X_new).max():.1e} at most")

# %%
# The flow
# --------
# Left: source and target. Middle: the way of 200 points. Right: the samples, over the
# velocity halfway.

path = flow.trajectory(X_new)

figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
plot_particles(X_source[:1000], ax=axes[0], label="source", color="0.6")
plot_particles(X_target[:1000], ax=axes[0], label="target")
axes[0].legend(loc="upper left", frameon=False)
axes[0].set_title("two clouds")
plot_trajectories(path.states, ax=axes[1])
axes[1].legend(loc="upper left", frameon=False)
axes[1].set_title(f"200 points, {path.nfe} evaluations")
plot_velocity_field(flow.velocity, t=0.5, xlim=(-5, 7), ylim=(-5, 6), ax=axes[2])
plot_particles(X_sampled, ax=axes[2])
axes[2].set_title("samples, velocity at t = 0.5")
figure.savefig("two_moons.png", dpi=150)
plt.show()
