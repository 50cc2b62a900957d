"""Architectures, sized from the data (input_shape and output_size are filled in), and functions.

A `Function` of its weights alone takes the place of model and data both.
"""

from truerisk.model.cnn import CNN
from truerisk.model.cnn1d import CNN1d
from truerisk.model.function import Function
from truerisk.model.linear import Linear
from truerisk.model.mlp import MLP
from truerisk.model.multimodal import Ackley, Rastrigin, SineProduct, StyblinskiTang
from truerisk.model.polynomial import Polynomial
from truerisk.model.quadratic import Booth, Paraboloid, QuadraticBowl
from truerisk.model.recurrent import GRU, LSTM, RNN
from truerisk.model.resnet import ResNet
from truerisk.model.saddle import Cubic, MonkeySaddle, Saddle
from truerisk.model.softmax import SoftmaxLoss
from truerisk.model.transformer import Transformer
from truerisk.model.valley import Beale, Himmelblau, Rosenbrock

__all__ = [
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "Ackley",
    "Beale",
    "Booth",
    "CNN1d",
    "Cubic",
    "Function",
    "Himmelblau",
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
]
