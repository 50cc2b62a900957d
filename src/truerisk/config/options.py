"""The configuration outside the groups: its types, and the ranges of its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

Seed = Annotated[int, Field(ge=0, lt=2**63)]
FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class SeedOptions:
    """``seed``: a base number, and streams set by hand."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    base: Seed
    init: Seed | None = None
    data: Seed | None = None
    order: Seed | None = None
    noise: Seed | None = None


@dataclass(frozen=True)
class ClipOptions:
    """``step.clip``: the largest norm, or the largest entry, of a gradient."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    norm: PositiveFloat | None = None
    value: PositiveFloat | None = None


@dataclass(frozen=True)
class StepOptions:
    """``step``: micro-batches in an optimizer step, and how its gradient is clipped."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    accumulate: PositiveInt = 1
    clip: ClipOptions = field(default_factory=ClipOptions)


@dataclass(frozen=True)
class RiskOptions:
    """``risk``: how often, on how many samples and how precisely risks are measured."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    every: PositiveInt = 1
    train_samples: PositiveInt | None = None
    final_train_samples: PositiveInt | None = None
    true_stderr: PositiveFloat = 0.005
    true_samples: PositiveInt = 2_000_000
    weighted: bool = False


@dataclass(frozen=True)
class StopOptions:
    """``stop``: when a deterministic problem counts as solved."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    gradient_norm: PositiveFloat | None = None
    relative_decrease: PositiveFloat | None = None


@dataclass(frozen=True)
class HalvingOptions:
    """``halving``: when the cells of a sweep are compared, and how many go on."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    first: PositiveInt | None = None
    factor: Annotated[int, Field(ge=2)] = 3


@dataclass(frozen=True)
class ParamGroups:
    """``param_groups``: ordered rules (``truerisk.core.parameter_rules``)."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    rules: list[dict[str, Any]]


@dataclass(frozen=True)
class Parametrization:
    """``parametrization``: the model's numbers at which weights and rates were chosen."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    base: dict[str, Any] | None = None


@dataclass(frozen=True)
class TrainerOptions:
    """``trainer``: the arguments of ``lightning.Trainer`` that our own loop serves.

    A run that is given no others does without Lightning, whose import takes longer than it.
    """

    accelerator: str = "auto"
    devices: list[int] | str | int = "auto"
    num_nodes: int = 1
    strategy: Any = "auto"
    precision: Any = None
    max_epochs: int | None = None
    max_steps: int = -1
    max_time: str | dict[str, int] | None = None
    sync_batchnorm: bool = False
    detect_anomaly: bool = False


@dataclass(frozen=True)
class Options:
    """Everything in the configuration that is not an argument of a ``_target_``."""

    seed: SeedOptions
    step: StepOptions
    risk: RiskOptions
    param_groups: ParamGroups
    compile: bool
    threads: PositiveInt | Literal["auto"]
    checkpoint_seconds: NonNegativeFloat
    resume: str | None
    study: str | None = None
    recompute: bool = False
    figures: bool | None = None
    report: bool = True
    stop: StopOptions = field(default_factory=StopOptions)
    halving: HalvingOptions = field(default_factory=HalvingOptions)
    monitor: str = "risk/val"
    parametrization: Parametrization = field(default_factory=Parametrization)
