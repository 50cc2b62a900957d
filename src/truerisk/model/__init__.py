"""Architectures, sized from the data (input_shape and output_size are filled in), and functions.

A `Function` of its weights alone takes the place of model and data both.
"""

from truerisk.model.cnn import CNN, CNN1d, ResNet
from truerisk.model.convex import ExponentialSum, Lessard, QuadraticBowl, SoftmaxLoss
from truerisk.model.feedforward import MLP, Linear, Polynomial
from truerisk.model.functions import (
    Ackley,
    Beale,
    Booth,
    Cubic,
    Function,
    GaussianField,
    Himmelblau,
    MonkeySaddle,
    Paraboloid,
    Rastrigin,
    Rosenbrock,
    Saddle,
    SineProduct,
    StyblinskiTang,
)
from truerisk.model.gpt import GPT
from truerisk.model.recurrent import GRU, LSTM, RNN
from truerisk.model.transformer import Transformer
from truerisk.model.vision_transformer import VisionTransformer
from truerisk.model.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "GPT",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "Ackley",
    "Beale",
    "Booth",
    "CNN1d",
    "Cubic",
    "ExponentialSum",
    "Function",
    "GaussianField",
    "Himmelblau",
    "Lessard",
    "Linear",
    "MonkeySaddle",
    "Paraboloid",
    "Polynomial",
    "QuadraticBowl",
    "Rastrigin",
    "ResNet",
    "Rosenbrock",
    "Saddle",
    "SineProduct",
    "SoftmaxLoss",
    "StyblinskiTang",
    "Transformer",
    "VisionTransformer",
    "WideResNet",
]
