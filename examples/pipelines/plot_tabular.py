"""
More rows for a table
=====================

Make synthetic rows for a table of measurements, pandas in and pandas out, and test in the
hardest way there is: can a classifier tell them from real ones?
"""

# %%
# A table
# -------
# Breast cancer cells: 569 rows. We take five of the measurements; they differ in scale by a
# factor of a thousand, hence the scaler, and some are skewed, hence the logarithm.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sknsgf import NSGFSampler
from sknsgf.metrics import energy_distance, two_sample_auc

columns = ["mean radius", "mean texture", "mean area", "mean smoothness", "mean compactness"]
table = load_breast_cancer(as_frame=True).data[columns]
train, test = train_test_split(table, test_size=0.4, random_state=0)

# %%
# Fit, sample, and back to the units of the table
# -----------------------------------------------
# The steps before the flow undo themselves, in the reverse order.

prepare = make_pipeline(
    FunctionTransformer(np.log, np.exp, feature_names_out="one-to-one"), StandardScaler()
).set_output(transform="pandas")
Z = prepare.fit_transform(train)
flow = NSGFSampler(source="gaussian", max_iter=600, random_state=0).fit(Z)
rows = prepare.inverse_transform(flow.sample(len(test), random_state=0))
synthetic = pd.DataFrame(rows, columns=columns)
print(synthetic.head().round(3).to_string())

# %%
# Can a classifier tell?
# ----------------------
# The two-sample test trains a classifier to tell synthetic from held-out rows and reports its
# area under the ROC curve on rows it has not seen: 0.5 is guessing, 1 is "always". Beside it a
# single Gaussian with the same covariance, and the training rows themselves, which are real.
#
# Copies of training rows would pass this test as well. So the last column is how far a row is
# from its nearest training row, relative to what held-out rows are: near 1 is right, near 0 are
# copies.

gauss = GaussianMixture(1, random_state=0).fit(Z).sample(len(test))[0]
Z_test = prepare.transform(test).to_numpy()
candidates = {
    "flow": prepare.transform(synthetic).to_numpy(),
    "one Gaussian": gauss,
    "training rows": Z.to_numpy()[: len(test)],
}


def nearest(rows):
    """Median distance to the nearest training row that is not the row itself."""
    distances = np.sort(np.linalg.norm(rows[:, None] - Z.to_numpy(), axis=2), axis=1)
    return np.median(np.where(distances[:, 0] > 0, distances[:, 0], distances[:, 1]))


print(f"{'':14s} AUC   energy  nearest")
for name, rows in candidates.items():
    auc, energy = two_sample_auc(rows, Z_test, random_state=0), energy_distance(rows, Z_test)
    print(f"{name:14s} {auc:.2f}  {energy:6.3f}  {nearest(rows) / nearest(Z_test):.2f}")

# %%
# Look
# ----
# Pairs of columns, in their own units. The bend between radius and area is a law, area goes
# with the square of the radius, and the samples keep it; smoothness and compactness have a long
# tail.

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
pairs = [(0, 2), (3, 4), (0, 1)]
for ax, (i, j) in zip(axes, pairs, strict=True):
    ax.scatter(test[columns[i]], test[columns[j]], s=14, color="0.6", label="held-out rows")
    ax.scatter(synthetic[columns[i]], synthetic[columns[j]], s=8, color="#d1495b", label="made")
    ax.set(xlabel=columns[i], ylabel=columns[j])
axes[0].legend(frameon=False)
plt.show()
