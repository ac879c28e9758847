"""Make ``docs/images/flow.gif``, the moving picture of the landing page and the README.

    python docs/_make/flow_gif.py

Noise becomes eight Gaussians, the eight Gaussians two moons: two learned flows, one behind the
other, on common particles. Takes about a minute.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians, make_gaussian, make_moons

PATH = Path(__file__).parents[1] / "images" / "flow.gif"
N_PARTICLES, N_STEPS, HOLD, TAIL = 900, 34, 14, 5
PAPER, INK = "#10202f", "#ffb454"


def states():
    """Positions at every frame, pauses included, and the caption of each."""
    noise, ring, moons = (
        make(5000, random_state=0) for make in (make_gaussian, make_8gaussians, make_moons)
    )
    options = {"n_sampling_steps": N_STEPS, "random_state": 0}
    first = NSGFSampler(**options).fit(noise, ring)
    second = NSGFSampler(**options).fit(ring, moons)
    out = first.trajectory(make_gaussian(N_PARTICLES, random_state=1)).states
    on = second.trajectory(out[-1]).states
    parts = [_held(out[0]), out, _held(out[-1]), on, _held(on[-1])]
    captions = ["noise", "", "eight Gaussians", "", "two moons"]
    lengths = [len(part) for part in parts]
    return np.concatenate(parts), np.repeat(captions, lengths)


def _held(state):
    return np.repeat(state[None], HOLD, axis=0)


def draw(positions, captions):
    """One frame a state, every particle with the last few of its positions behind it."""
    figure = plt.figure(figsize=(4.8, 4.0), facecolor=PAPER)
    ax = figure.add_axes((0, 0, 1, 1), facecolor=PAPER)
    ax.set(xlim=(-7.8, 7.8), ylim=(-6.5, 6.5), xticks=[], yticks=[])
    tail = [ax.plot([], [], ".", color=INK, alpha=0.10, ms=3.2, mew=0)[0] for _ in range(TAIL)]
    dots = ax.plot([], [], ".", color=INK, alpha=0.85, ms=4.2, mew=0)[0]
    text = ax.text(
        0.03, 0.04, "", transform=ax.transAxes, color="white", fontsize=13, family="DejaVu Sans"
    )

    def show(frame):
        for age, marks in enumerate(tail, start=1):
            marks.set_data(*positions[max(0, frame - age)].T)
        dots.set_data(*positions[frame].T)
        text.set_text(captions[frame])

    return FuncAnimation(figure, show, frames=len(positions))


def main():
    """Write the picture."""
    animation = draw(*states())
    animation.save(PATH, writer=PillowWriter(fps=20), dpi=100)
    _shrink(PATH)
    print(f"{PATH}: {PATH.stat().st_size / 1e6:.2f} MB")


def _shrink(path, n_colors=24):
    """One small palette for all frames."""
    from PIL import Image, ImageSequence

    with Image.open(path) as gif:
        parts = [
            (frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)
        ]
    frames, pauses = zip(*parts, strict=True)
    palette = frames[len(frames) // 2].quantize(n_colors)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=pauses, loop=0, optimize=True
    )


if __name__ == "__main__":
    main()
