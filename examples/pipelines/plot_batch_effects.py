"""
Removing a batch effect
=======================

The same kind of tumour, measured by two laboratories. The second has other instruments, so
whatever is learned from all rows together learns first of all which laboratory a row is from.
Carry the second batch to the first, and check two things on rows that the flow has not seen:
that the laboratories can no longer be told apart, and that what matters, the diagnosis, has
survived.
"""

# %%
# Two laboratories
# ----------------
# The measurements are real, the second instrument is not: gains that differ by column, offsets,
# and cross-talk between neighbouring channels. Each laboratory has patients of its own.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFSampler
from sknsgf.metrics import two_sample_auc

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X[:, :10])
X_first, X_second, y_first, y_second = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
rng = np.random.default_rng(0)
gain, offset = rng.uniform(0.6, 1.5, size=10), rng.normal(scale=0.8, size=10)
X_second = (X_second + 0.8 * np.roll(X_second, 1, axis=1)) * gain + offset

first, first_test, _, _ = train_test_split(X_first, y_first, test_size=0.3, random_state=0)
second, second_test, _, y_test = train_test_split(
    X_second, y_second, test_size=0.3, random_state=0
)

# %%
# Carry the second batch to the first
# -----------------------------------
# No labels are used. There are 200 rows a batch: little data needs little training, or the flow
# learns the rows of the first laboratory by heart.

flow = NSGFSampler(max_iter=300, random_state=0).fit(second, first)

# %%
# Can the laboratory be told?
# ---------------------------
# A classifier tries; the area under its ROC curve is 0.5 for guessing and 1 for certainty. Then
# the question that matters: trained on the first laboratory, how often does a diagnosis hold in
# the second? Beside the flow stands what one would do without transport, to standardise each
# batch. That undoes gain and offset, but not the cross-talk, so the laboratory can still be
# told. For the diagnosis alone it is good enough here: a nearest-neighbour vote does not mind
# the rest.


def standardise(rows):
    """Give rows of the second batch the mean and spread of the first."""
    return (rows - second.mean(0)) / second.std(0) * first.std(0) + first.mean(0)


batches = {
    "raw": second_test,
    "standardised": standardise(second_test),
    "transported": flow.transform(second_test),
}
diagnose = KNeighborsClassifier(7).fit(X_first, y_first)
print(f"{'':13s} laboratory  diagnosis")
for name, rows in batches.items():
    told = two_sample_auc(rows, first_test, random_state=0)
    print(f"{name:13s}    {told:.2f}       {diagnose.score(rows, y_test):.2f}")

# %%
# Look
# ----
# Two components of the first laboratory's rows. Colours are the diagnosis, pale circles the
# first laboratory, crosses unseen rows of the second.

project = PCA(2).fit(X_first)
figure, axes = plt.subplots(
    1, 3, figsize=(13, 4.2), layout="constrained", sharex=True, sharey=True
)
for ax, (name, rows) in zip(axes, batches.items(), strict=True):
    ax.scatter(*project.transform(X_first).T, c=y_first, cmap="coolwarm", s=22, alpha=0.25)
    ax.scatter(*project.transform(rows).T, c=y_test, cmap="coolwarm", s=32, marker="x")
    ax.set(title=name, xticks=[], yticks=[])
plt.show()

# %%
# A word of caution
# -----------------
# The flow makes the *distributions* equal. Had the second laboratory seen other patients, say
# hardly any malignant tumour, making the distributions equal would be wrong: some rows would be
# moved to a diagnosis that is not theirs. Correct batches only where you have reason to believe
# that their contents agree.
