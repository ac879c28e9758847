"""
Choose the blur by grid search
==============================

`blur` is the resolution of the Sinkhorn divergence: details finer than it are smoothed over. It
is an ordinary hyperparameter, so scikit-learn's search finds it, provided that all candidates
are judged by the same ruler.
"""

# %%
# The data and the search
# -----------------------
# `GridSearchCV` fits every candidate on part of the rows and calls `score` on the rest. `score`
# is minus the Sinkhorn divergence between carried source rows and held-out target rows at
# ``score_blur``, which is *not* ``blur``: a search judged at each candidate's own blur would
# choose the bluntest ruler.
#
# Source and target are split together, so they need equally many rows here.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV

from sknsgf import NSGFSampler
from sknsgf.datasets import make_gaussian, make_s_curve
from sknsgf.plotting import plot_particles

X_source, X_target = make_gaussian(2000, random_state=0), make_s_curve(2000, random_state=0)
search = GridSearchCV(
    NSGFSampler(max_iter=300, random_state=0),
    {"blur": [0.05, 0.15, 0.5, 1.5]},
    cv=2,
)
search.fit(X_source, X_target)
print("best:", search.best_params_)

# %%
# What the candidates do
# ----------------------
# What is finer than the blur is not compared. With the largest the noise hardly changes its
# shape; below a certain resolution nothing more is gained, only solver time is spent.

results = search.cv_results_
blurs = np.array([candidate["blur"] for candidate in results["params"]])
figure, axes = plt.subplots(1, 5, figsize=(15, 3.2), layout="constrained")
axes[0].errorbar(
    blurs, -results["mean_test_score"], results["std_test_score"], marker="o", color="#1f4e79"
)
axes[0].set(
    xscale="log",
    yscale="log",
    xlabel="blur",
    ylabel="held-out divergence",
    title="lower is better",
)
for blur, ax in zip(blurs, axes[1:], strict=True):
    flow = search.best_estimator_
    if blur != search.best_params_["blur"]:
        flow = NSGFSampler(blur=blur, max_iter=300, random_state=0).fit(X_source, X_target)
    plot_particles(X_target, ax=ax, color="0.85", s=4)
    plot_particles(flow.sample(1000), ax=ax, s=4)
    ax.set(title=f"blur {blur}", xticks=[], yticks=[], xlim=(-2.6, 2.6), ylim=(-4, 4))
plt.show()

# %%
# In practice
# -----------
# The default, "auto", is 5 % of the typical distance between target points; start there and
# search around it. The same call works with `RandomizedSearchCV`, over `hidden_layer_sizes` or
# `n_steps`, and over the parts of a pipeline.
