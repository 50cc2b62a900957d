"""Regularizers: brakes on overfitting, one hook each or several."""

from truerisk.core.batch import Forward
from truerisk.regularizer.augment import Augment
from truerisk.regularizer.averaging import EMA, SWA
from truerisk.regularizer.base import Regularizer
from truerisk.regularizer.batch_edits import CutMix, InputNoise, Mixup
from truerisk.regularizer.dropout import Dropout
from truerisk.regularizer.early_stopping import EarlyStopping
from truerisk.regularizer.penalties import (
    L1,
    L2,
    ElasticNet,
    Entropy,
    GroupLasso,
    InputGradient,
    Orthogonality,
)
from truerisk.regularizer.weight_constraints import MaxNorm, SpectralNorm

__all__ = [
    "EMA",
    "L1",
    "L2",
    "SWA",
    "Augment",
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
