"""
Colours of one picture in another
=================================

The pixels of a photograph are points in a space of three dimensions: red, green, blue. Carry
that cloud to the cloud of another photograph, and the first takes on the colours of the second.
The flow is fitted on a few thousand pixels and then applied to all of them, which is what
transport of the pixels alone cannot do.
"""

# %%
# Two photographs
# ---------------
# Both come with scikit-learn.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from sknsgf import NSGFSampler

temple = np.float32(load_sample_image("china.jpg")[::2, ::2] / 255)
flower = np.float32(load_sample_image("flower.jpg")[::2, ::2] / 255)
pixels = {"temple": temple.reshape(-1, 3), "flower": flower.reshape(-1, 3)}
rng = np.random.default_rng(0)
some = {name: rng.choice(rows, 5000, replace=False) for name, rows in pixels.items()}

# %%
# Fit on some pixels, move all
# ----------------------------
# One fit serves both ways: `transform` gives the temple the flower's colours,
# `inverse_transform` gives the flower the temple's.
#
# There are many pixels and few dimensions, so a network smaller than the default is quicker and
# good enough, and so is single precision, which the arrays decide.
#
# A colour can come out slightly darker than black or brighter than white, hence the `clip`.

flow = NSGFSampler(hidden_layer_sizes=(96, 96, 96), max_iter=1500, random_state=0).fit(
    some["temple"], some["flower"]
)
temple_moved = flow.transform(pixels["temple"]).clip(0, 1)
flower_moved = flow.inverse_transform(pixels["flower"]).clip(0, 1)

# %%
# Look
# ----

figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
pictures = {
    "temple": temple,
    "temple, in the flower's colours": temple_moved.reshape(temple.shape),
    "flower": flower,
    "flower, in the temple's colours": flower_moved.reshape(flower.shape),
}
for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture)
    ax.set_title(title)
    ax.axis("off")

# %%
# The same in the space of colours
# --------------------------------
# Each point is a pixel in its own colour. The moved cloud has taken the shape of the flower's.

figure = plt.figure(figsize=(11, 4), layout="constrained")
clouds = {
    "temple": some["temple"],
    "temple, moved": flow.transform(some["temple"]).clip(0, 1),
    "flower": some["flower"],
}
for number, (title, cloud) in enumerate(clouds.items(), start=1):
    ax = figure.add_subplot(1, 3, number, projection="3d")
    ax.scatter(*cloud[:2500].T, c=cloud[:2500], s=4)
    ax.set(title=title, xlabel="red", ylabel="green", zlabel="blue")
    ax.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), xticks=[], yticks=[], zticks=[])
plt.show()
