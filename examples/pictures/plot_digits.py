"""
Handwritten digits from noise
=============================

Eight by eight pixels are 64 columns, and 1797 images are few. Here `NSGFPlusPlus` turns noise
into digits: a few steps of the Sinkhorn flow, then a straight flow. We look at the samples, at
how one comes about, and at whether they are new.
"""

# %%
# Fit
# ---
# An image is a row of pixels. Scale them to [0, 1]; a sampler does not need labels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.model_selection import train_test_split

from sknsgf import NSGFPlusPlus
from sknsgf.metrics import energy_distance
from sknsgf.plotting import plot_images

X = load_digits().data / 16
X_train, X_test = train_test_split(X, test_size=500, random_state=0)
model = NSGFPlusPlus(source="gaussian", max_iter=1200, random_state=0).fit(X_train)
samples = model.sample(500, random_state=0)

# %%
# Samples
# -------
# Left: what the model makes. Right: data. Nothing keeps pixels inside [0, 1]; clip before
# showing.


figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, rows, title in zip(
    axes, (samples[:100], X_test[:100]), ("samples", "held-out data"), strict=True
):
    plot_images(rows, (1, 8, 8), value_range=(0, 1), cmap="gray_r", ax=ax)
    ax.set_title(title)

# %%
# From noise to digit
# -------------------
# Each line is one image on its way. The first five steps follow the Sinkhorn flow half of the
# way, and a rough shape shows in the noise; from there the straight flow sharpens it. The state
# between the two is in the trajectory twice, as the end of one and the start of the other, and no
# step of its own.

noise = X_train.mean(0) + model.scale_ * np.random.default_rng(3).normal(size=(8, 64))
path = model.trajectory(noise)
shown = [0, 1, 2, 3, 4, 5, 9, 13, 17, 21, len(path.states) - 1]
figure, ax = plt.subplots(figsize=(9, 6.6), layout="constrained")
strip = path.states[shown].swapaxes(0, 1).reshape(-1, 64)
plot_images(strip, (1, 8, 8), value_range=(0, 1), n_columns=len(shown), cmap="gray_r", ax=ax)
ax.set_axis_on()
ax.axvline(6 * 9 - 0.75, color="#d1495b", lw=2)
ax.set_xticks(np.arange(len(shown)) * 9 + 3.5, [f"step {k - (k > 5)}" for k in shown], rotation=45)
ax.set_yticks([])
ax.set_title("left of the line: Sinkhorn flow; right: straight flow")
plt.show()

# %%
# Are they good, and are they new?
# --------------------------------
# The energy distance to images that were held out, beside that of the training images
# themselves. And the distance of each sample to its nearest training image, beside that of
# held-out images: were the samples copies, theirs would be near zero.

print(f"energy distance: samples {energy_distance(samples, X_test):.4f}, ", end="")
print(f"training images {energy_distance(X_train, X_test):.4f}")
for name, rows in {"samples": samples, "held-out images": X_test}.items():
    _, distance = pairwise_distances_argmin_min(rows, X_train)
    print(f"nearest training image of {name}: {np.median(distance):.2f} (median)")
