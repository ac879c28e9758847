"""How the gallery is put together."""

from pathlib import Path

from tqdm import tqdm

ORDER = """
    two_moons
    eight_gaussians moons_from_gaussians checkerboard sinkhorn_flow blur_search anatomy likelihood
    watch_a_fit
    digits colour_transfer mnist
    domain_adaptation tabular batch_effects snapshots
    own_network own_source own_algorithm
""".split()


class ExampleOrder:
    """Sort key of one folder's examples: as listed above, unlisted ones last."""

    def __init__(self, src_dir):
        self.src_dir = src_dir

    def __call__(self, filename):
        """Return the place of one file."""
        name = Path(filename).stem.removeprefix("plot_")
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)

    def __repr__(self):
        return "<ExampleOrder>"


def quiet_progress_bars(gallery_conf, path):
    """Keep progress bars, which overwrite themselves in a terminal, out of the pages."""
    tqdm.status_printer = staticmethod(lambda file: lambda text: None)
