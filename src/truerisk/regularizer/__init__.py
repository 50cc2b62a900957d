"""Regularizers: brakes on overfitting, one hook each or several."""

from truerisk.regularizer.base import Forward, Regularizer
from truerisk.regularizer.cutmix import CutMix
from truerisk.regularizer.dropout import Dropout
from truerisk.regularizer.early_stopping import EarlyStopping
from truerisk.regularizer.elastic_net import ElasticNet
from truerisk.regularizer.ema import EMA
from truerisk.regularizer.entropy import Entropy
from truerisk.regularizer.group_lasso import GroupLasso
from truerisk.regularizer.input_gradient import InputGradient
from truerisk.regularizer.input_noise import InputNoise
from truerisk.regularizer.l1 import L1
from truerisk.regularizer.l2 import L2
from truerisk.regularizer.max_norm import MaxNorm
from truerisk.regularizer.mixup import Mixup
from truerisk.regularizer.orthogonality import Orthogonality
from truerisk.regularizer.spectral_norm import SpectralNorm
from truerisk.regularizer.swa import SWA

__all__ = [
    "EMA",
    "L1",
    "L2",
    "SWA",
    "CutMix",
    "Dropout",
    "EarlyStopping",
    "ElasticNet",
    "Entropy",
    "Forward",
    "GroupLasso",
    "InputGradient",
    "InputNoise",
    "MaxNorm",
    "Mixup",
    "Orthogonality",
    "Regularizer",
    "SpectralNorm",
]
