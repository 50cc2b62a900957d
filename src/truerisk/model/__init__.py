"""Architectures, sized from the data: input_shape and output_size are filled in."""

from truerisk.model.cnn import CNN
from truerisk.model.cnn1d import CNN1d
from truerisk.model.linear import Linear
from truerisk.model.mlp import MLP
from truerisk.model.recurrent import GRU, LSTM, RNN
from truerisk.model.resnet import ResNet
from truerisk.model.transformer import Transformer

__all__ = ["CNN", "GRU", "LSTM", "MLP", "RNN", "CNN1d", "Linear", "ResNet", "Transformer"]
