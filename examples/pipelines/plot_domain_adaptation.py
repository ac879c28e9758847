"""
A classifier that changes instruments
=====================================

You have labelled scans from one scanner and unlabelled scans from another. A classifier trained
on the first does badly on the second. Carry the labelled scans to the second scanner, and train
there.
"""

# %%
# Two scanners
# ------------
# Handwritten digits, cut to 12 components. The second scanner is simulated: it mixes and shifts
# the components a little. The rows of the two domains are different digits by different hands;
# nothing is paired.

import matplotlib.pyplot as plt
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFSampler
from sknsgf.plotting import plot_particles

X, y = load_digits(return_X_y=True)
X = PCA(12, whiten=True, random_state=0).fit_transform(X)
X_source, X_other, y_source, y_other = train_test_split(X, y, test_size=0.5, random_state=0)
rng = np.random.default_rng(0)
mixing = np.eye(12) + 0.25 * rng.normal(size=(12, 12))
X_other = X_other @ mixing + rng.normal(size=12)
X_target, X_test, y_target, y_test = train_test_split(
    X_other, y_other, test_size=0.5, random_state=0
)

# %%
# Transport in a pipeline
# -----------------------
# The labelled rows go through scaler and flow into the classifier. `X_target`, the unlabelled
# rows, is a further argument: metadata routing brings it to the flow, and ``transform_input``
# sends it through the scaler first. Leave that out and nothing complains, but scaled rows are
# carried to unscaled ones.

sklearn.set_config(enable_metadata_routing=True)
adapt = make_pipeline(
    StandardScaler(),
    NSGFSampler(max_iter=1000, random_state=0),
    KNeighborsClassifier(),
    transform_input=["X_target"],
)
adapt.fit(X_source, y_source, X_target=X_target)

# %%
# The trap
# --------
# Rows of the second scanner are already where the classifier was trained: they need the scaler
# and the classifier, but not the flow. ``domain="target"`` says so. Without it they are moved a
# second time, and nothing complains either.

print("moved twice:", adapt.predict(X_test[:10]))
print("as it is:   ", adapt.predict(X_test[:10], domain="target"))
print("true labels:", y_test[:10])

# %%
# What it gains
# -------------
# *Source only* is the classifier without transport. *Oracle* was given the labels of the target
# rows, which we pretend not to have. *Moved twice* is the trap.

source_only = make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(X_source, y_source)
oracle = make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(X_target, y_target)
accuracy = {
    "source only": source_only.score(X_test, y_test),
    "transported": adapt.score(X_test, y_test, domain="target"),
    "moved twice": adapt.score(X_test, y_test),
    "oracle": oracle.score(X_test, y_test),
}
for name, value in accuracy.items():
    print(f"{name:12s} {value:.3f}")

# %%
# Look
# ----
# The first two components. Grey: the second scanner. Coloured: labelled rows, before and after.

scaler, flow = adapt[0], adapt[1]
before = scaler.transform(X_source)
after, target = flow.transform(before), scaler.transform(X_target)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for ax, rows, title in zip(axes, (before, after), ("before", "after"), strict=False):
    plot_particles(target[:, :2], ax=ax, color="0.8", s=10)
    ax.scatter(*rows[:, :2].T, c=y_source, cmap="tab10", s=6)
    ax.set(title=f"labelled rows, {title}", xticks=[], yticks=[])
bars = axes[2].barh(list(accuracy), list(accuracy.values()), color="#1f4e79")
axes[2].bar_label(bars, fmt="%.2f", padding=3)
axes[2].invert_yaxis()
axes[2].set(title="accuracy on the second scanner", xlim=(0, 1.1), xticks=[])
axes[2].spines[["top", "right", "bottom"]].set_visible(False)
plt.show()
sklearn.set_config(enable_metadata_routing=False)
