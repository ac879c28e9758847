"""Pictures of two-dimensional flows, of images in a grid, and of how networks were trained.

Every function draws on the `ax` it is given, or on the current one, and returns it. The display
classes follow scikit-learn's: ``FlowDisplay.from_estimator(flow, X)``.
Matplotlib is needed only here, and only when a function is called.
"""

from sknsgf.plotting._clouds import plot_particles, plot_trajectories, plot_velocity_field
from sknsgf.plotting._displays import FlowDisplay, SwitchTimeDisplay, VelocityFieldDisplay
from sknsgf.plotting._history import plot_history
from sknsgf.plotting._images import plot_images

__all__ = [
    "FlowDisplay",
    "SwitchTimeDisplay",
    "VelocityFieldDisplay",
    "plot_history",
    "plot_images",
    "plot_particles",
    "plot_trajectories",
    "plot_velocity_field",
]
