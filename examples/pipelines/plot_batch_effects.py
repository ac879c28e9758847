"""
Removing a batch effect
=======================

The same wines, measured by two laboratories. The second has other calibrations, so whatever is
learned from all rows together learns first of all which laboratory a row is from. Carry the
second batch to the first, and check two things: that the laboratories can no longer be told
apart, and that what matters, the kind of wine, has survived.
"""

# %%
# Two laboratories
# ----------------
# The wines are real, the second instrument is not: gains that differ by column, offsets, and a
# little cross-talk between neighbouring channels. Both laboratories have their own wines.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFSampler

X, y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)
first, second, y_first, y_second = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
rng = np.random.default_rng(1)
gain, offset = rng.uniform(0.6, 1.5, size=13), rng.normal(scale=0.8, size=13)
second = (second + 0.15 * np.roll(second, 1, axis=1)) * gain + offset

# %%
# Carry the second batch to the first
# -----------------------------------
# No labels are used. There are 89 rows a batch: little data needs little training, or the flow
# learns the rows by heart.

flow = NSGFSampler(max_iter=300, random_state=0).fit(second, first)
corrected = flow.transform(second)

# %%
# Can the laboratory be told?
# ---------------------------
# A classifier tries, by cross-validation; 0.5 is guessing. Then the question that matters:
# trained on the wines of the first laboratory, how well are the second's recognised?
# Standardising each batch by itself is what one would do without transport, and here it is a
# strong rival: most of this effect *is* gain and offset.


def standardise(rows):
    """Give a batch the mean and spread of the first."""
    return (rows - rows.mean(0)) / rows.std(0) * first.std(0) + first.mean(0)


batches = {"raw": second, "standardised": standardise(second), "transported": corrected}
kind = LogisticRegression(max_iter=1000).fit(first, y_first)
lab = np.repeat([0, 1], [len(first), len(second)])
print(f"{'':13s} laboratory   kind of wine")
for name, rows in batches.items():
    told = cross_val_score(LogisticRegression(max_iter=1000), np.vstack([first, rows]), lab, cv=5)
    print(f"{name:13s}    {told.mean():.2f}          {kind.score(rows, y_second):.2f}")

# %%
# Look
# ----
# Two components of the first laboratory's rows. Colours are the kinds of wine, circles the first
# laboratory, crosses the second.

project = PCA(2).fit(first)
figure, axes = plt.subplots(
    1, 3, figsize=(13, 4.2), layout="constrained", sharex=True, sharey=True
)
for ax, (name, rows) in zip(axes, batches.items(), strict=True):
    ax.scatter(*project.transform(first).T, c=y_first, cmap="Dark2", s=28, alpha=0.5)
    ax.scatter(*project.transform(rows).T, c=y_second, cmap="Dark2", s=32, marker="x")
    ax.set(title=name, xticks=[], yticks=[])
plt.show()

# %%
# A word of caution
# -----------------
# The flow makes the *distributions* equal. If the second laboratory had received other wines,
# say hardly any of one kind, making the distributions equal would be wrong: some rows would be
# moved to a kind that they are not. Correct batches only where you have reason to believe that
# their contents agree.
