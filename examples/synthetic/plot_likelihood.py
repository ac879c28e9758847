"""
A map of the likelihood
=======================

A flow that starts at noise does not only draw samples. It also tells how likely a point is:
follow the point back to the noise, where densities are known, and count how much the way has
stretched space.
"""

# %%
# Fit a flow from noise
# ---------------------
# Eight Gaussians, whose true density we know and can compare with.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians

X = make_8gaussians(5000, random_state=0)
flow = NSGFSampler(
    source="gaussian", hidden_layer_sizes=(96, 96, 96), max_iter=2000, random_state=0
).fit(X)

# %%
# Change of variables
# -------------------
# If the flow carries z to x, then :math:`p(x) = p_0(z)\,|\det \partial z / \partial x|`, where
# :math:`p_0` is the density of the noise. `score_samples` follows x back, step by step, and
# adds up the logarithms of the determinants. It is the density of what `sample` draws, exactly,
# in as many steps as `sample` takes.


def truth(points):
    """Density of the data at points of shape (n, 2)."""
    angles = np.arange(8) * np.pi / 4
    centres = 5 * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.mean([multivariate_normal(c, 10**-0.5).pdf(points) for c in centres], axis=0)


# %%
# Draw it
# -------
# Everything the flow calls likely is likely, and between the groups the map is dark, but for
# the thin bridges where it had to tear the noise apart: a flow is continuous, so it can stretch
# space but not cut it.

side = np.linspace(-7.5, 7.5, 90)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
maps = {"learned": np.exp(flow.score_samples(grid)), "true": truth(grid)}
figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, (name, density) in zip(axes, maps.items(), strict=True):
    picture = density.reshape(90, 90)
    ax.imshow(
        picture,
        origin="lower",
        extent=(-7.5, 7.5, -7.5, 7.5),
        cmap="magma",
        vmax=truth(grid).max(),
    )
    ax.set(title=f"{name} density", xticks=[], yticks=[])
plt.show()

# %%
# Does it add up?
# ---------------
# A density has to integrate to one. And the mean log-likelihood of fresh data can be no higher
# than that under the truth, on average; how far it stays below is the Kullback-Leibler
# divergence. Rows that only a flow held back at the edge of the target reaches have no density:
# `score_samples` warns of them and returns minus infinity, and both means leave them out.

area = (side[1] - side[0]) ** 2
fresh = make_8gaussians(2000, random_state=1)
log_density = flow.score_samples(fresh)
inside = np.isfinite(log_density)
print(f"integral: {area * maps['learned'].sum():.3f}")
print(f"fresh rows with a density: {inside.sum()} of {len(fresh)}")
print(f"their mean log-likelihood: {log_density[inside].mean():.3f}")
print(f"under the true density:    {np.log(truth(fresh[inside])).mean():.3f}")
