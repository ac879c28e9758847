"""The students: modules called as ``network(t, x)``."""

# Redundant names are for the rooms that rest on this one, not for users.
from sknsgf.networks._description import describe_network, rebuild_network
from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._predictor import ConvolutionalTimePredictor, TimePredictor
from sknsgf.networks._sizes import are_sizes as are_sizes
from sknsgf.networks._sizes import check_image_shape as check_image_shape
from sknsgf.networks._standardised import StandardisedVelocity
from sknsgf.networks._unet import VelocityUNet

__all__ = [
    "ConvolutionalTimePredictor",
    "StandardisedVelocity",
    "TimeEmbedding",
    "TimePredictor",
    "VelocityMLP",
    "VelocityUNet",
    "describe_network",
    "rebuild_network",
]
