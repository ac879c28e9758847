"""Neural Sinkhorn Gradient Flow with the scikit-learn interface.

Learn, from samples alone, the velocity field that carries a source distribution to a target
distribution along the Wasserstein gradient flow of the Sinkhorn divergence; then move new
source points, or sample new target points::

    NSGFSampler().fit(X, Y).sample(1000)

The rooms, in the order of the method:

1. :mod:`sknsgf.sinkhorn`: entropic optimal transport between point clouds.
2. :mod:`sknsgf.flow`: the teachers, particles that follow the Sinkhorn gradient flow.
3. :mod:`sknsgf.networks`: the students, modules called as ``network(t, x)``.
4. :mod:`sknsgf.training`: how a student learns.
5. :mod:`sknsgf.ode`: how a learned velocity is integrated.
6. :mod:`sknsgf.algorithms`: the papers' algorithms, on tensors.
7. :mod:`sknsgf.samplers`: the estimators.

Beside them: :mod:`sknsgf.metrics`, :mod:`sknsgf.datasets` and :mod:`sknsgf.plotting`.
"""

from sknsgf.samplers import NSGFPlusPlus, NSGFSampler, PersistenceError

__all__ = ["NSGFPlusPlus", "NSGFSampler", "PersistenceError"]
__version__ = "0.1.0.dev0"
