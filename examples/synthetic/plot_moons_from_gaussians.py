"""
From eight Gaussians to two moons
=================================

The source need not be noise. Here both ends are data: learn to carry one cloud to another, look
at the trajectories and at the velocity field behind them, and go back.
"""

# %%
# Fit between two clouds
# ----------------------
# Two arrays, the rows to move and the rows to reach. They are not paired and need not be equally
# many.

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians, make_moons
from sknsgf.plotting import plot_particles, plot_trajectories, plot_velocity_field

X_source = make_8gaussians(5000, random_state=0)
X_target = make_moons(4000, random_state=0)
flow = NSGFSampler(max_iter=2000, random_state=0).fit(X_source, X_target)

# %%
# The field at three times
# ------------------------
# The network has learned one velocity for every place and time. Early on everything rushes
# inward. Near the end the arrows only sort particles between the two moons. Arrows show
# direction, colour speed; both outside the data are extrapolation.

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharex=True, sharey=True)
X_new = make_8gaussians(500, random_state=1)
path = flow.trajectory(X_new)
for ax, step in zip(axes, (0, 5, 9), strict=True):
    t = path.times[step]
    plot_velocity_field(flow.velocity, t=t, xlim=(-7, 7), ylim=(-7, 7), ax=ax, n_grid=22)
    plot_particles(path.states[step], ax=ax, color="#d1495b", s=10)
    ax.set_title(f"t = {t:.1f}")
    ax.set(xticks=[], yticks=[])

# %%
# The paths
# ---------
# Paths are nearly straight. This is what makes ten steps of the simplest integrator enough.

figure, ax = plt.subplots(figsize=(6.5, 6.5), layout="constrained")
plot_trajectories(path.states[:, :250], ax=ax)
ax.set(xticks=[], yticks=[])
ax.legend(loc="upper left", frameon=False)
plt.show()

# %%
# And back
# --------
# `inverse_transform` undoes every step, so it returns points of the moons to the Gaussians they
# came from. Points that nothing was carried to have no exact origin; these are samples, so
# they do.

X_back = flow.inverse_transform(flow.transform(X_new))
error = np.linalg.norm(X_back - X_new, axis=1)
print(
    f"round trip: half of the points within {np.median(error):.1e}, all within {error.max():.2g}"
)
