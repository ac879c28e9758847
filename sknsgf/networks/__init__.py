"""The students: modules called as ``network(t, x)``."""

# Redundant names are for the rooms that rest on this one, not for users.
from sknsgf.networks._description import describe_network, rebuild_network
from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._making import NetworkSpec, go_on_with
from sknsgf.networks._making import in_dtype as in_dtype
from sknsgf.networks._making import suit_rate as suit_rate
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._pickling import ByValue as ByValue
from sknsgf.networks._predictor import ConvolutionalTimePredictor, TimePredictor
from sknsgf.networks._standardised import StandardisedVelocity
from sknsgf.networks._unet import VelocityUNet

__all__ = [
    "ConvolutionalTimePredictor",
    "NetworkSpec",
    "StandardisedVelocity",
    "TimeEmbedding",
    "TimePredictor",
    "VelocityMLP",
    "VelocityUNet",
    "describe_network",
    "go_on_with",
    "rebuild_network",
]
