"""
MNIST, where the file is at hand
================================

Images of 28 by 28 pixels want a convolutional network and more than a minute. This example
shows the code and, unless told where the data is, a picture that it made before.

Set ``SKNSGF_DATA`` to the folder of an archive ``mnist.npz`` (arrays `x_train`, `y_train`,
`x_test`, `y_test`) to run it, and ``SKNSGF_MAX_ITER`` for the effort. Nothing is downloaded.
"""

# %%
# The model
# ---------
# ``image_shape`` says that rows are images, and the networks of both phases become U-Nets.
# Reading patches of 2 by 2 pixels as one makes them four times as fast. The first phase stops half
# way, while there is still noise to make strokes of, and gets a quarter of the training steps.
# Everything else is as for other rows: `fit`, `sample`, `transform`.

import os
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import load_images
from sknsgf.networks import VelocityUNet
from sknsgf.plotting import plot_images


def draw_samples(path, max_iter):
    """Fit on the training images and draw a hundred new ones."""
    images = load_images(path)
    network = partial(VelocityUNet, width=32, patch_size=2)
    training = {"network": network, "batch_size": 64}
    model = NSGFPlusPlus(
        sinkhorn_flow=NSGFSampler(
            n_steps=5, t_end=0.5, max_iter=max(1, max_iter // 4), **training
        ),
        source="gaussian",
        image_shape=images.image_shape,
        n_straight_steps=55,
        max_iter=max_iter,
        random_state=0,
        verbose=1,
        **training,
    ).fit(2 * images.data - 1)
    _, ax = plt.subplots(figsize=(6, 6), layout="constrained")
    plot_images(model.sample(100, random_state=1), images.image_shape, value_range=(-1, 1), ax=ax)
    ax.set_title(f"{max_iter} training steps a network")


def show_picture(path):
    """Show what this model made before."""
    _, ax = plt.subplots(figsize=(6, 6), layout="constrained")
    ax.imshow(plt.imread(path))
    ax.set_axis_off()
    ax.set_title("made before: 23 minutes of one core, 60 evaluations")


# %%
# The picture
# -----------

archive = Path(os.environ.get("SKNSGF_DATA", "")) / "mnist.npz"
pictures = [Path(folder, "docs/images/mnist.png") for folder in ("../..", "..", ".")]
kept = next((path for path in pictures if path.exists()), None)
if archive.exists():
    draw_samples(archive, int(os.environ.get("SKNSGF_MAX_ITER", "7000")))
elif kept:
    show_picture(kept)
else:
    print("Neither the data nor the picture is here; set SKNSGF_DATA.")
plt.show()
