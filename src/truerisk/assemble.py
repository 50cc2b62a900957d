"""From configuration to objects: the only module that instantiates config."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, flag_override
from torch import Tensor, nn
from torch.optim import Optimizer

from truerisk.combinations import check_averages, check_combinations, check_function, check_scores
from truerisk.config.contents import hash_contents
from truerisk.config.options import ClipOptions, RiskOptions, StepOptions
from truerisk.config.parts import conf_dir, list_options
from truerisk.config.targets import FILLED_IN, find_called, locate_target, permit_targets
from truerisk.core import rng
from truerisk.core.errors import (
    FAULTS,
    ConfigError,
    UserError,
    describe_error,
    describe_fault,
    first_line,
    list_own_lines,
    locate_code,
    read_message,
)
from truerisk.core.recompute import recompute_blocks
from truerisk.core.seeds import derive_streams
from truerisk.core.without_dynamo import leave_dynamo_out
from truerisk.data import DataInfo, RunData
from truerisk.diagnostics import Diagnostic
from truerisk.loss import Surrogate, adapt_loss, find_suited_tasks, read_class_weights
from truerisk.loss.surrogate import check_fit
from truerisk.loss.trial import check_gradient, describe_untrained
from truerisk.metric import fit_metrics
from truerisk.metric.metric import Metric
from truerisk.model.building_blocks import MisfitError
from truerisk.model.first_look import (
    choose_output,
    fill_lazy_layers,
    is_own,
    refuse_too_large,
    try_forward,
)
from truerisk.model.given_model import refuse_lightning
from truerisk.optimizer import needs_of, parameter_groups
from truerisk.parametrization import (
    Growth,
    check_optimizer,
    compare_shapes,
    complete_base,
    divide_shared_inputs,
    measure_sizes,
    rescale_weights,
    scale_rates,
)
from truerisk.recipe import Recipe
from truerisk.regularizer.base import Regularizer
from truerisk.run import RunFolder
from truerisk.scheduler import Schedule
from truerisk.task import get_task

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

CALLS = {
    "initializer": "; an initializer is a class whose objects are called on the model, and on "
    "inputs where needs_data = True"
}
"""How parts are called, for one that was written to be called otherwise."""
READINGS = frozenset(
    [
        *(
            "path",
            "target",
            "columns",
            "drop",
            "categorical",
            "task",
            "classes",
            "missing",
            "dates",
        ),
        *("max_categories", "id", "weight", "y", "delimiter", "decimal", "thousands", "encoding"),
        *("na_values", "keep_default_na"),
    ]
)
"""Keys of a source that say how its rows are read, and not which there are."""


LoadedData = dict[str, RunData]
"""Data by what they follow from, for runs that are trained together."""


def assemble(
    cfg: DictConfig,
    fitted: Mapping[str, Any] | None = None,
    loaded: LoadedData | None = None,
) -> Recipe:
    """Build every part of a run; each random one from its own stream.

    Args:
        cfg: the run's configuration.
        fitted: what another run fitted to its training data (``RunData.state_dict``), to be used
            on this data instead of fitting anew.
        loaded: takes in the data, for other runs on the same, which then share one copy of it.
    """
    if fitted is None:
        check_combinations(cfg)
    else:  # to be measured: how its weights were reached is no matter
        check_function(cfg)
    data = build_data(cfg, fitted, loaded=loaded)
    if fitted is None:
        refuse_leak(cfg, data)
    # what was fitted comes with weights, which no initializer is to look for again
    return _join_parts(cfg, data, data.info, data if fitted is None else None)


def build_data(
    cfg: DictConfig,
    fitted: Mapping[str, Any] | None = None,
    predicting: bool = False,
    loaded: LoadedData | None = None,
) -> RunData:
    """Load and split the data of a run.

    Args:
        cfg: the run's configuration.
        fitted: see `assemble`.
        predicting: whether samples may lack targets.
        loaded: see `assemble`.
    """
    seeds, single = derive_streams(cfg.seed), cfg.trainer.get("precision") != "64-true"
    # a target of whole numbers is a quantity to one loss, and a class to another
    suited = find_suited_tasks(get_object(cfg.loss._target_))
    asked = repr((OmegaConf.to_container(cfg.data, resolve=True), seeds.data, single, suited))
    if loaded is not None and asked in loaded:
        data = copy.copy(loaded[asked])
        # a stream of its own: the order of batches can be varied alone
        data.order_seed, data.notes = seeds.order, list(data.notes)  # each run adds its own
        return data
    data = build(cfg.data, seed=seeds.data)
    data.order_seed, data.predicting, data.single = seeds.order, predicting, single
    data.suited = suited
    data.default_kind = read_default_kind(str((cfg.get("choices") or {}).get("data")))
    data.load_state_dict(fitted or {})
    data.prepare()
    if loaded is not None:
        loaded[asked] = data
    return data


@cache  # cells of a study ask for the same
def read_default_kind(choice: str) -> str:
    """Read which standardization an option of ``data`` has by itself."""
    option = list_options("data", (conf_dir(),)).get(choice)
    own = OmegaConf.select(OmegaConf.load(option), "standardize") if option else None
    return own or "feature"


def refuse_leak(cfg: DictConfig, data: RunData) -> None:
    """Refuse initial weights of a run that was trained on samples which this one holds out.

    Args:
        cfg: the run's configuration.
        data: its samples.

    Raises:
        ConfigError: ``initializer.path`` is such a run.
    """
    path = cfg.initializer.get("path")
    run = find_run(Path(str(path)).expanduser())
    if path is None or run is None:
        return
    earlier = run.load_config()
    mine, theirs = derive_streams(cfg.seed).data, derive_streams(earlier.seed).data
    if (mine == theirs and cfg.data == earlier.data) or not share_samples(cfg.data, earlier.data):
        return
    source = cfg.data.source
    draws = "seed" in inspect.signature(get_object(source._target_)).parameters
    if mine != theirs and draws and source.get("seed") is None:
        return  # a source that draws its samples has drawn others
    if "path" in source:  # the file may have moved since
        earlier.data.source.path = source.path
    trained = set(build_data(earlier).identities.get("train", {}).get("row", ()))
    for name in ("val", "test"):
        rows = data.identities.get(name, {}).get("row", ())
        seen = sum(row in trained for row in rows)
        if seen and not (name == "test" and data.has_own_test):
            raise ConfigError(
                f"initializer.path: {run.path} was trained on {seen} of the {len(rows)} {name} "
                "samples of this run, whose risk there would be too low: split the samples as it "
                f"did (seed.data={theirs} and its data.split, data.val, data.test, data.fold), or "
                "begin with a run on other samples"
            )


def find_run(path: Path) -> RunFolder | None:
    """Return the run that a path leads into: its folder, or one of its checkpoints.

    Args:
        path: of a folder or a file.
    """
    folder = path
    if path.parent.name == "checkpoints":
        folder = path.parent.parent
    run = RunFolder(folder)
    if run.config.is_file():
        return run
    return None


def share_samples(mine: DictConfig, theirs: DictConfig) -> bool:
    """Tell whether two runs number the rows of the same samples.

    Args:
        mine: the ``data`` of a configuration.
        theirs: that of another.
    """
    own, other = (dict(node.get("source") or {}) for node in (mine, theirs))
    if not own or {k: v for k, v in own.items() if k not in READINGS} != {
        k: v for k, v in other.items() if k not in READINGS
    }:
        return False
    paths = [str(node.get("path")) for node in (own, other)]
    # a copy of the file, or the same one by another name
    digests = [hash_contents({"path": path}).get(path, path) for path in paths]
    return digests[0] == digests[1]


def restore_recipe(
    config: Mapping[str, Any], data: Mapping[str, Any] | None
) -> tuple[Recipe, DataInfo]:
    """Build the parts of a run whose weights exist already.

    Args:
        config: the plain, resolved configuration.
        data: the fields of `DataInfo`, by which the data need not be loaded yet; None loads it to
            find out.

    Returns:
        The recipe, and what its data says of itself.
    """
    cfg = OmegaConf.create(dict(config))
    if data is None:  # checkpoints of the first version do not tell
        recipe = assemble(cfg)
        return recipe, recipe.data.info
    info = DataInfo(**{**data, "input_shape": tuple(data["input_shape"])})
    seeds = derive_streams(cfg.seed)
    unread = build(cfg.data, seed=seeds.data)
    unread.order_seed = seeds.order
    recipe = _join_parts(cfg, unread, info, None)
    if cfg.trainer.precision == "64-true":  # in which they were saved
        recipe.model.to(torch.float64)
        recipe.surrogate.to(torch.float64)
    return recipe, info


def _join_parts(cfg: DictConfig, data: RunData, info: DataInfo, initial: RunData | None) -> Recipe:
    """Build model, loss and all that moves the weights; ``initial`` data initializes them."""
    seeds = derive_streams(cfg.seed)
    known = {"input_shape": tuple(info.input_shape), "standardizer": data.standardizer}
    regularizers = {name: build(node, **known) for name, node in cfg.regularizer.items()}
    check_averages(regularizers)
    regularizers = get_task(info.task).select_regularizers(regularizers)
    model = build_model(cfg, info, regularizers, seeds.init, initial)
    surrogate = build_surrogate(cfg, info)
    if initial is not None and initial.train is not None:
        ordered = (cfg.data.get("source") or {}).get("classes") is not None
        check_fit(surrogate, initial.train.y, None if ordered else info.class_names)
        if needs_of(get_object(cfg.optimizer._target_)).gradient:
            check_gradient(surrogate)
        initial.notes += describe_untrained(surrogate)
    check_scores(surrogate, regularizers)
    recipe = Recipe(
        data=data,
        model=model,
        surrogate=surrogate,
        regularizers=regularizers,
        optimizer=partial(_optimizer, cfg, partial(_compare_widths, cfg, info, surrogate)),
        needs=needs_of(get_object(cfg.optimizer._target_)),
        schedule=partial(_schedule, cfg),
        step=_step(cfg),
        risk=RiskOptions(**cfg.risk),
        streams=seeds,
        metrics=build_metrics(cfg, surrogate, info, data),
        monitor=str(cfg.get("monitor") or "risk/val"),
    )
    recipe.check_monitor()
    return recipe


def build(node: DictConfig, **available: Any) -> Any:
    """Call a node's target with its own numbers and those available that it has names for.

    Args:
        node: of a configuration, so that it knows its group.
        available: what is filled in; `truerisk.config.targets.FILLED_IN` has the names.
    """
    group = node._get_full_key("").partition(".")[0]
    if undeclared := available.keys() - FILLED_IN.get(group, frozenset()):
        # the check before the run believes that table
        raise TypeError(f"{sorted(undeclared)} are not in FILLED_IN[{group!r}]")
    names = inspect.signature(locate_part(str(node["_target_"]), node)).parameters
    try:
        built = make_factory(node)(**{k: v for k, v in available.items() if k in names})
    except FAULTS as error:  # a user's class may raise anything
        if (told := _user_error(error, node)) is error:
            raise
        raise told from error
    if isinstance(built, nn.Module) and "_parameters" not in vars(built):
        raise ConfigError(
            f"{node._get_full_key('')}: {node._target_}: __init__ does not call "
            f"super().__init__(), which every torch.nn.Module needs first{locate_code(type(built))}"
        )
    return built


def build_with(node: DictConfig, **objects: Any) -> Any:
    """Call a node's target with its own numbers, and objects in the place of some of them."""
    return make_factory(node)(**objects)


def make_factory(node: DictConfig) -> partial[Any]:
    """A node's target with its own numbers, to be called with what is filled in.

    Args:
        node: of a configuration.

    Raises:
        ConfigError: a target cannot be found, or is of the standard library.
    """
    target = locate_part(str(node["_target_"]), node)
    read = plain if node.get("_recursive_") is False else instantiate_values
    # one by one: Hydra calls only what lies below, as what a part of the user's returns may be of
    # any library, which Hydra's list of packages has not
    values = {str(k): read(v) if OmegaConf.is_config(v) else v for k, v in node.items()}
    args = values.pop("_args_", ())
    for key in ("_target_", "_partial_", "_recursive_", "_convert_"):
        values.pop(key, None)
    return partial(target, *args, **values)


def instantiate_values(node: Any) -> Any:
    """Instantiate what lies below a node; the only call of Hydra's `instantiate`.

    Args:
        node: without a target of its own, or a value that may have one.

    Raises:
        ConfigError: a target cannot be found, or is of the standard library.
    """
    values = plain(node)
    called = list(find_called(values))
    if not called:
        return values
    for below in called:
        locate_part(str(below["_target_"]), node)
    with permit_targets(values):
        return instantiate(node, _convert_="all")


def locate_part(path: str, node: Any) -> Callable[..., Any]:
    """Import what a configuration says is to be called.

    Args:
        path: of a class or function.
        node: where it stands.

    Raises:
        ConfigError: it cannot be found, or is of the standard library. Every part is of this
            package, torch or another library, or the user's; ``os.system`` and its like are none.
    """
    key = f"{node._get_full_key('')}._target_"
    found: Any = locate_target(path, key)
    home = found
    while isinstance(home, partial):
        home = home.func
    # where it was defined, too: `torch.os.system` is not torch's
    for name in (path, str(getattr(home, "__module__", ""))):
        if name.partition(".")[0] in sys.stdlib_module_names:
            raise ConfigError(
                f"{key}={path} is of Python's standard library, which has no part of a recipe: "
                "name a class or function of yours that calls it"
            )
    return found


def _user_error(error: BaseException, node: DictConfig) -> BaseException:
    """The error to show where a target refused its numbers."""
    # Hydra wraps what a constructor raises into errors of its own
    while isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, MisfitError):
        # several options are of one class, which knows none of their names
        root: Any = node._get_root()
        option = (root.get("choices") or {}).get("model") or error.option
        return ConfigError(str(error).replace(error.option, option, 1))
    if isinstance(error, UserError) or lacks_memory(error):
        return error
    what = f"{node._get_full_key('')}: {node._target_}"
    if list_own_lines(error):
        return ConfigError(f"{what}: {describe_fault(error)}")
    called = error.__traceback__
    if isinstance(error, TypeError) and called is not None and called.tb_next is None:
        # it has not begun: what it takes is not what such a part is called with
        told = CALLS.get(node._get_full_key("").partition(".")[0], "")
        place = locate_code(get_object(node["_target_"]))
        return ConfigError(f"{what}: {describe_error(error)}{told}{place}")
    if isinstance(error, ValueError):
        return ConfigError(f"{what}: {read_message(error)}")
    return error


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory for a tensor."""
    kinds = MemoryError, torch.OutOfMemoryError
    return isinstance(error, kinds) or "can't allocate memory" in read_message(error)


def build_loss(node: DictConfig, info: DataInfo) -> tuple[Any, list[float] | None]:
    """Build the loss without its weights of classes, and those as a list.

    Args:
        node: the ``loss`` of a configuration.
        info: what the data has said of itself.

    Raises:
        ConfigError: the weights do not fit the classes.
    """
    target = get_object(node._target_)
    ours = getattr(target, "__module__", "").partition(".")[0] in ("torch", "truerisk")
    node = node.copy()
    lists = {key: node[key] for key in ("weight", "pos_weight") if ours and key in node}
    with flag_override(node, ["struct", "readonly"], False):
        for key in lists:
            node[key] = None
    given = {
        # a node may say how to make a tensor
        key: instantiate_values(value) if OmegaConf.is_config(value) else value
        for key, value in lists.items()
    }
    weight, positive = read_class_weights(given.get("weight"), info), given.get("pos_weight")
    if positive is None:
        return build(node), weight
    # torch wants a tensor, and a configuration has lists
    tensor = torch.as_tensor(positive, dtype=torch.get_default_dtype())
    return build_with(node, pos_weight=tensor), weight


def build_surrogate(cfg: DictConfig, info: DataInfo) -> Surrogate:
    """The loss, fitted to the data's task."""
    loss, weight = build_loss(cfg.loss, info)
    scale = info.target_mean, info.target_scale
    option = (cfg.get("choices") or {}).get("loss")
    if option in list_options("loss", (conf_dir(),)):  # `loss._target_` may name another class
        option = None
    surrogate = adapt_loss(loss, info.task, info.num_outputs, *scale, weight, option)
    if cfg.data.get("standardize_target") is True and not surrogate.is_scaled:
        raise ConfigError(
            "data.standardize_target=true, but the loss is no function of the difference between "
            f"output and target that keeps its form in other units ({cfg.loss._target_}, "
            f"{info.task}): set data.standardize_target=false"
        )
    return surrogate


def build_metrics(
    cfg: DictConfig, surrogate: Surrogate, info: DataInfo, data: RunData
) -> dict[str, Metric]:
    """The chosen metrics, fitted to the data's task, by their names in the configuration."""
    size = info.num_outputs
    sizes: dict[str, Any] = {"num_classes": size, "num_labels": size, "num_outputs": size}
    sizes["token_bytes"] = data.count_token_bytes
    # a run of an earlier version has no such node
    nodes = cfg.get("metric") or {}
    built = {str(name): build(node, **sizes) for name, node in nodes.items()}
    return fit_metrics(built, surrogate, size, info.class_names)


def build_model(
    cfg: DictConfig,
    info: DataInfo,
    regularizers: dict[str, Regularizer],
    seed: int,
    data: RunData | None = None,
) -> nn.Module:
    """The model, initialized (where ``data`` is given) and edited by the regularizers."""
    surrogate = build_surrogate(cfg, info)
    size = surrogate.output_size
    # a test function's numbers: -1.2 in double precision is no float32
    dtype = torch.get_default_dtype()
    if cfg.trainer.get("precision") == "64-true":
        dtype = torch.float64
    with rng.fork_seeded(seed):
        sizes = {"input_shape": tuple(info.input_shape), "output_size": size}
        model = _build_network(cfg, **sizes, dtype=dtype)
        reads_tokens = is_own(model) or getattr(model, "reads_tokens", False)
        if surrogate.task.integer_inputs and not reads_tokens:
            raise ConfigError(
                f"{_name_model(cfg)} reads quantities, and "
                "this data has tokens: take model=gpt, rnn, lstm or gru with model.readout=every "
                "model.bidirectional=false, or a model of your own that begins with "
                "torch.nn.Embedding"
            )
        if is_own(model) and surrogate.task.has_samples:
            _look_first(cfg, info, model, surrogate, data)
        if data is not None:
            data.notes += _initialize(cfg.initializer, model, data)
        # before regularizers edit the model, whose parametrizations hide the weights
        if narrow := _find_base(cfg):
            draw = partial(_draw_base, narrow, data, **sizes, dtype=dtype)
            growths = compare_shapes(model, draw())
            divide_shared_inputs(model, growths)
            if data is not None:
                rescale_weights(model, growths, measure_sizes(draw))
        for regularizer in regularizers.values():
            model = regularizer.edit_model(model)
    # last: a regularizer may return another module, whose calls are those to compile
    # a run of an earlier version has no such key
    if cfg.get("recompute"):
        recompute_blocks(model)
    if cfg.compile:
        _try_compiler(cfg.trainer.get("accelerator", "auto"))
        model.compile()
    return model


def _initialize(node: DictConfig, model: nn.Module, data: RunData) -> list[str]:
    """Call the initializer on the model, and on inputs where it asks for them; gives its notes."""
    initialize = build(node)
    given: list[Tensor | None] = []
    if getattr(initialize, "needs_data", False):
        given = [None if data.train is None else first_inputs(data, "full")]
    try:
        initialize(model, *given)
    except FAULTS as error:  # a user's class may raise anything
        if (told := _user_error(error, node)) is error:
            raise
        raise told from error
    return list(getattr(initialize, "notes", []))


def _name_model(cfg: DictConfig) -> str:
    """Say how the model was chosen, for messages."""
    if cfg.model._target_.endswith(".given_model"):  # the class may be called as an option is
        return f"model={cfg.model.class_path.rpartition('.')[2]}(…) from Python"
    return f"model={cfg.choices.get('model') or cfg.model._target_}"


def _find_base(cfg: DictConfig) -> DictConfig | None:
    """Return the configuration with the model at its base width; None if there is no such.

    Raises:
        ConfigError: the model has no such number, or its weights are read from a file.
    """
    base = (cfg.get("parametrization") or {}).get("base")
    if base is None:
        return None
    option = _name_model(cfg)
    numbers = {k: v for k, v in plain(cfg.model).items() if k not in ("_target_", "output")}
    base = complete_base(plain(base), numbers, option)
    if "path" in cfg.initializer:
        raise ConfigError(
            "parametrization=mup draws weights as large as suits their width, and initializer.path "
            "reads them from a file: take another initializer, or parametrization=standard"
        )
    check_optimizer(get_object(cfg.optimizer._target_))
    narrow = cfg.copy()
    with flag_override(narrow, ["struct", "readonly"], False):
        narrow.model.update(base)
    return narrow


def _draw_base(cfg: DictConfig, data: RunData | None, **known: Any) -> nn.Module:
    """Build the network at its base width, and initialize it where there is data."""
    try:
        model = _build_network(cfg, **known)
    except ConfigError as error:  # it names the model's key, which is not the one to change
        raise ConfigError(f"parametrization.base: no model can be built there: {error}") from None
    if data is not None:
        _initialize(cfg.initializer, model, data)
    return model


def _try_compiler(accelerator: str) -> None:
    """Compile an addition, so that what this machine lacks is told before anything is trained.

    Raises:
        ConfigError: torch.compile does not work here.
    """
    device = accelerator
    if accelerator not in ("cpu", "mps"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1, device=device))
    except Exception as error:  # of torch, of its compilers, or of the system
        reason = first_line(error.__cause__ or error.__context__ or error)
        raise ConfigError(
            "compile=true: torch.compile needs a C++ compiler that works, such as g++ (CXX=… names "
            f"another), or set compile=false: {reason}"
        ) from error


def _build_network(cfg: DictConfig, **available: Any) -> nn.Module:
    """Build what ``model`` names, with one of its outputs chosen where it has several."""
    option = _name_model(cfg)
    node, output = cfg.model, cfg.model.get("output")
    takes = inspect.signature(get_object(node._target_)).parameters
    chooses = "output" in node and "output" not in takes
    if chooses:
        # under its own key, by which messages name what is wrong in it
        node = OmegaConf.masked_copy(node, [str(key) for key in node if key != "output"])
        node._set_key("model")
        node._set_parent(cfg)
    make = partial(build, node, **available)
    refuse_too_large(make, plain(node), option)
    try:
        model = make()
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise ConfigError(f"{option} does not fit into memory: {first_line(error)}") from error
        raise
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{option}: {node._target_} makes a {type(model).__name__}, which is no torch.nn.Module"
            f"{locate_code(type(model))}"
        )
    refuse_lightning(model)
    if chooses and output is not None:
        choose_output(model, output)
    return model


def _look_first(
    cfg: DictConfig, info: DataInfo, model: nn.Module, fitted: Surrogate, data: RunData | None
) -> None:
    """Try a user's model on two samples, and let its lazy layers learn their width."""
    option = _name_model(cfg)
    kind = torch.int64 if fitted.task.integer_inputs else torch.get_default_dtype()
    x = torch.zeros(2, *info.input_shape, dtype=kind)
    if data is not None and data.train is not None:
        x = first_inputs(data, 2)
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if cfg.trainer.get("precision") != "64-true" and own not in (None, torch.get_default_dtype()):
        # as the run does it, so that a forward pass that relies on its own type fails here
        model.to(torch.get_default_dtype())
        kinds = [str(kind).removeprefix("torch.") for kind in (own, torch.get_default_dtype())]
        note = f"{option}: weights of {kinds[0]} are trained in {kinds[1]}"
        if own == torch.float64:
            note += " (trainer.precision=64-true keeps them)"
        option = note
        if data is not None:
            data.notes.append(note)
    elif x.is_floating_point() and own is not None:
        x = x.to(own)
    fill_lazy_layers(model, x, option)
    if data is not None and len(x) > 1:
        needed = fitted.task.try_outputs(torch.zeros(()), len(x), fitted.output_size).shape
        gradient = needs_of(get_object(cfg.optimizer._target_)).gradient
        try_forward(model, x, needed, option, gradient)


def first_inputs(data: RunData, count: int | str) -> Tensor:
    """Return the first training inputs; ``full``: as many as go through the model at once."""
    if count == "full":
        count = get_task(data.info.task).block_size(data.info.input_shape)
    count = min(len(data.train), int(count))
    x = next(data.train.batches([torch.arange(count)])).x
    if get_task(data.info.task).integer_inputs:
        return x
    return x.to(torch.get_default_dtype())


def plain(node: DictConfig) -> dict[str, Any]:
    """A node as plain, resolved containers."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def _compare_widths(
    cfg: DictConfig, info: DataInfo, surrogate: Surrogate
) -> dict[str, Growth] | None:
    """How each weight has grown from the base width; None without one."""
    narrow = _find_base(cfg)
    if narrow is None:
        return None
    known = {"input_shape": tuple(info.input_shape), "output_size": surrogate.output_size}
    with rng.fork_seeded(0):  # for the shapes alone
        model = _build_network(cfg, **known, dtype=torch.float32)
        return compare_shapes(model, _draw_base(narrow, None, **known, dtype=torch.float32))


def _optimizer(
    cfg: DictConfig, widths: Callable[[], dict[str, Growth] | None], model: nn.Module
) -> Optimizer:
    rules = plain(cfg.param_groups)["rules"]
    leave_dynamo_out()
    try:
        factory = make_factory(cfg.optimizer)
        groups = parameter_groups(model, rules, factory)
        if growths := widths():
            groups = scale_rates(groups, growths, factory)
        return factory(groups)
    except (InstantiationException, ValueError) as error:
        raise _user_error(error, cfg.optimizer) from error
    except (AttributeError, TypeError, ImportError) as error:
        target = str(cfg.optimizer._target_)
        if not target.startswith(("torch.", "pytorch_optimizer.")):
            raise  # a fault of the user's class shows its lines
        raise ConfigError(
            f"optimizer: {target} cannot be built from groups of parameters and these numbers "
            f"({read_message(error)}): take another optimizer"
        ) from error


def _schedule(cfg: DictConfig, optimizer: Optimizer, horizon: int) -> Schedule:
    options = plain(cfg.scheduler)
    target, warmup = options.pop("_target_"), options.pop("warmup", 0)
    return Schedule(get_object(target), options, optimizer, horizon, warmup)


def _step(cfg: DictConfig) -> StepOptions:
    return StepOptions(cfg.step.accumulate, ClipOptions(**cfg.step.clip))


def build_diagnostics(cfg: DictConfig, given: bool = True) -> dict[str, Any]:
    """The chosen diagnostics, and other callbacks, by their names in the configuration.

    Args:
        cfg: the configuration.
        given: whether with those that were given from Python, and must be there.
    """
    nodes = {
        str(name): node
        for name, node in cfg.get("diagnostics", {}).items()
        if given or not str(node._target_).endswith(".given_part")
    }
    built = {name: build(node) for name, node in nodes.items()}
    for name, diagnostic in built.items():
        if isinstance(diagnostic, Diagnostic):
            diagnostic.name = name
    return built


def build_loggers(cfg: DictConfig, **available: Any) -> list[Logger]:
    """The chosen loggers, and CSV always."""
    csv = DictConfig({"_target_": "truerisk.logger.TidyCSV"}, key="logger")
    nodes = {"csv": csv, **cfg.logger}
    config = plain(cfg)
    return [build(node, config=config, **available) for node in nodes.values()]
