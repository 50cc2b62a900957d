import argparse

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir, version
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from truerisk.config.cell_composer import CellComposer
from truerisk.config.compose import (
    ASKS_BASE,
    LISTS,
    ConfigLoader,
    compose,
    hydra_session,
    make_parser,
    override_config,
    resolve_config,
)
from truerisk.config.parts import conf_dir
from truerisk.core.errors import ConfigError
from truerisk.core.seeds import Streams, derive_streams, mix_bits


@pytest.fixture
def mine(tmp_path):
    def write(path, text):
        file = tmp_path / f"{path}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return str(tmp_path)

    return write


def refused(overrides, config_dir=None):
    with pytest.raises(ConfigError) as error:
        compose(overrides.split(), config_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("optimizer=adm", ["conf/optimizer", "did you mean 'adam'"]),
        ("regularizer=[l2,dropuot]", ["conf/regularizer", "did you mean 'dropout'"]),
        ("optimiser=adam", ["did you mean 'optimizer'"]),
        ("datta.batch_size=3", ["no group or key 'datta'"]),
        ("optimizer.lrr=1", ["optimizer.lrr", "did you mean 'lr'", "conf/optimizer/adam.yaml"]),
        ("~optimizer.lrr", ["optimizer.lrr", "did you mean 'lr'"]),
        ("data.num_samples=9", ["it is data.source.num_samples"]),
        ("optimizer.lr.x=1", ["lr is a single value"]),
        ("optimizer.maximize=true", ["+optimizer.maximize=…"]),
        ("step.clip.nrom=1", ["did you mean 'norm'", "conf/train.yaml"]),
        ("optimizer=sgd optimizer.betas=[0,0]", ["adam", "conf/optimizer/sgd.yaml"]),
        ("optimizer=custom optimizer.lr=1", ["+optimizer.lr=…"]),
        ("optimizer=custom", ["optimizer._target_ has no value yet"]),
        ("regularizer=l1 regularizer.l2.coefficient=1", ["regularizer=[l1,l2]"]),
        ("regularizer.l2.coefficient=1", ["regularizer=[early_stopping,l2]"]),
        ("logger.wandb.project=x", ["logger=[csv,wandb]"]),
        ("trainer.gradient_clip_val=1", ["step.clip.norm"]),
        ("optimizer=null", ["optimizer=null", "name of an option"]),
        ("+optimizer=sgd", ["leave out the +"]),
        ("+optimizer.lr=1", ["leave out the +"]),
        ("optimizer.lr=[1", ["cannot read the override 'optimizer.lr=[1': the bracket [ is not"]),
        ("optimizer.lr={b", ["'optimizer.lr={b': the bracket { is not closed"]),
        ("optimizer.lr=1)", ["'optimizer.lr=1)': there is no bracket before that this ) closes"]),
        ("optimizer.lr=[1)", ["'optimizer.lr=[1)': there is no bracket before that this ) closes"]),
        ("optimizer.lr='x", ["the quote ' is not closed"]),
        ("seed=1,", ["cannot read the override 'seed=1,': a value is missing beside a comma"]),
        ("optimizer.lr=1e-3,,2", ["'optimizer.lr=1e-3,,2': a value is missing beside a comma"]),
        ("optimizer.lr=choice(,1)", ["a value is missing beside a comma"]),
        ("optimizer.lr=interval(1)", ["interval(1): missing a required argument: 'end'"]),
        ("study=a=b:c", ["in it is quoted twice: \"study='…'\""]),
        ("a&b=3", ["cannot read the override 'a&b=3': 'a&b' is no key"]),
        ("sgd", ["'sgd' is no override"]),
        ("optimizer.lr=1,2", ["--multirun", "optimizer.lr=[1,2]"]),
        ("seed=range(3)", ["--multirun"]),
        ("hydra.run.dirr=x", ["hydra.run.dirr"]),
        ("=3", ["'=3' has no key: write key=value"]),
        ("~step.clip.norm=2", ["~step.clip.norm=2: every run has this key", "so: ~step.clip.norm"]),
        ("~halving", ["~halving: every run has this key", "~halving.first"]),
        ("~checkpoint_seconds", ["every run has this key; leave it out"]),
        ("~trainer.max_epochs", ["every run has this key; leave it out", "trainer.max_epochs=…"]),
        ("~trainer.precision", ["every run has this key; leave it out"]),
        ("~regularizer=l2", ["~regularizer.NAME"]),
        ("~optimizr", ["there is no group or key 'optimizr'"]),
        ("optimizer=glob(ad*)", ["add --multirun"]),
        ("optimizer=glob(zz*)", ["no option has such a name"]),
        ("optimizer.lr=glob(a*)", ["optimizer.lr is no group"]),
        ("hydra/launcher=jobli", ["known: basic, joblib"]),
    ],
)
def test_a_mistake_gets_one_line_that_says_what_to_write(overrides, parts):
    message = refused(overrides)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("# A\nlr: [1, 2\nx: 3\n", ["mine.yaml, line 3"]),
        ("# A\nlr: 1\nlr: 2\n", ["mine.yaml, line 3", "duplicate key lr"]),
        ("# A\n_target_: a.B\nlr: ${optimizer.nope}\n", ["optimizer.lr", "optimizer.nope"]),
        ("# A\n_target_: a.B\nlr: ???\n", ["optimizer.lr has no value yet"]),
        ("# A\ndefaults: [adamm]\n", ["optimizer/mine.yaml: ", "'adamm'"]),
    ],
)
def test_a_malformed_file_is_named(mine, text, parts):
    message = refused("optimizer=mine", mine("optimizer/mine", text))
    assert [part for part in parts if part not in message] == [], message


def test_a_late_package_line_is_named(mine):
    text = "# A\n# @package _global_\ndefaults:\n  - override /model: linear\n"
    message = refused("experiment=mine", mine("experiment/mine", text))
    assert "'# @package …' must be the first line" in message


FILES = {
    "experiment/a": ("seed: 3\n", "begins with the line `# @package _global_`"),
    "experiment/b": (
        "# @package _global_\ndefaults:\n  - /data: iris\n",
        "`- override /data: iris`",
    ),
    "experiment/c": (
        "# @package _global_\ndefaults:\n  - data: iris\n",
        "`- override /data: iris`",
    ),
    "experiment/d": (
        "# @package _global_\ndefaults:\n  - override data: iris\n",
        "`- override /data: iris`",
    ),
    "optimizer/e": ("lr: 0.1\n", "has no line `_target_: PACKAGE.MODULE.CLASS`"),
    "optimizer/f": ("", "has no line `_target_: PACKAGE.MODULE.CLASS`"),
    "optimizer/g": ("- a\n- b\n", "holds a list: an option is a mapping"),
    "regularizer/h": ("_target_: my.Own\nrate: 1\n", "write `h:` above, and indent the rest"),
    "regularizer/i": ("mine:\n  rate: 1\n", "below `mine:` there is no line `  _target_: "),
    "regularizer/j": ("# nothing\n", "is empty: write `j:`"),
}


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_no_option_is_named_with_the_line_it_lacks(mine, path):
    text, wanted = FILES[path]
    folder = mine(path, text)
    group, name = path.split("/")
    message = refused(f"{group}={name}", folder)
    assert message.startswith(f"{folder}/{path}.yaml") and wanted in message


def test_options_that_take_over_others_are_whole(mine):
    folder = mine("optimizer/mine", "defaults: [adam]\nlr: 0.5\n")
    assert compose(["optimizer=mine"], folder).optimizer.lr == 0.5
    mine("data/mine", "defaults: [_split, _self_]\nsource:\n  _target_: my.source\n")
    assert compose(["data=mine"], folder).data.batch_size == 100
    mine("regularizer/mine", "l2:\n  _target_: truerisk.regularizer.L2\n")
    assert list(compose(["regularizer=[mine]"], folder).regularizer) == ["l2"]


def test_the_environment_gives_numbers_where_numbers_belong(mine, monkeypatch):
    monkeypatch.setenv("SEED", "3")
    monkeypatch.setenv("NAME", "12")
    given = ["seed=${oc.env:SEED,7}", "optimizer.lr=${oc.env:RATE,1e-2}", "data=table"]
    given += ["data.source.missing=${oc.env:NAME}", "seed.noise=${oc.env:NOISE,null}"]
    cfg = compose(given)
    assert cfg.seed.base == 3 and type(cfg.seed.base) is int and cfg.seed.noise is None
    assert cfg.optimizer.lr == 0.01 and type(cfg.optimizer.lr) is float
    assert cfg.data.source.missing == "12"  # a text there, so a text
    text = "# @package _global_\n# A\nseed: ${oc.env:SEED}\nmodel:\n  width: ${oc.env:NAME}\n"
    cfg = compose(["experiment=env"], mine("experiment/env", text))
    assert derive_streams(cfg.seed) == derive_streams(3) and cfg.model.width == 12
    with hydra_session():
        cell = CellComposer(ConfigLoader())(["seed.base=${oc.env:SEED}", "optimizer.lr=0.1"])
    assert cell.config["seed"]["base"] == 3
    assert "'NOWHERE' not found" in refused("seed=${oc.env:NOWHERE}")


def test_the_environment_gives_what_the_key_takes(monkeypatch):
    for name, text in {"RATE": "1e-2", "COUNT": "2", "ZEROS": "012", "OFF": "off"}.items():
        monkeypatch.setenv(name, text)
    cfg = compose(["optimizer.lr=${oc.env:RATE}", "optimizer.betas=[${oc.env:RATE},0.9]"])
    assert cfg.optimizer.lr == 0.01 and list(cfg.optimizer.betas) == [0.01, 0.9]
    # a number in place of a word, and the word
    cfg = compose(["optimizer=gd", "data.batch_size=${oc.env:COUNT}", "threads=${oc.env:COUNT}"])
    assert cfg.data.batch_size == 2 and cfg.threads == 2
    assert compose(["threads=${oc.env:NONE,auto}"]).threads == "auto"
    # no octal number, as it is none on the command line
    cfg = compose(["study=${oc.env:ZEROS}", "figures=${oc.env:OFF}"])
    assert cfg.study == "012" and cfg.figures is False


def test_what_is_taken_away_is_off(mine):
    text = "# @package _global_\n# A\nstep:\n  clip:\n    norm: 2.0\nscheduler:\n  warmup: 3\n"
    text += "defaults:\n  - override /regularizer: [l2, dropout]\n  - override /scheduler: cosine\n"
    folder = mine("experiment/held", text)
    held = compose(["experiment=held"], folder)
    assert held.step.clip.norm == 2 and list(held.regularizer) == ["l2", "dropout"]
    taken = ["experiment=held", "~step.clip", "~regularizer", "~logger", "~stop"]
    cfg = compose(taken, folder)
    assert cfg.step.clip == {"norm": None, "value": None} and cfg.step.accumulate == 1
    assert cfg.regularizer == {} and cfg.logger == {}
    assert compose(["experiment=held", "~step.clip.norm"], folder).step == cfg.step
    assert list(compose(["experiment=held", "~regularizer.l2"], folder).regularizer) == ["dropout"]
    cfg = compose(["experiment=held", "~scheduler"], folder)
    assert cfg.scheduler._target_ == "truerisk.scheduler.Constant"
    assert "weight_decay" not in compose(["~optimizer.weight_decay"]).optimizer


def test_a_group_of_the_users_that_nothing_chooses_from(mine):
    folder = mine("colour/red", "# Red\n_target_: my.Red\n")
    assert refused("colour=red", folder).endswith("choose one with a plus: +colour=…")
    assert compose(["+colour=red"], folder).colour == {"_target_": "my.Red"}


def test_what_an_earlier_override_has_changed_is_known():
    assert "step.clip.norm: it cannot be set" in refused("step.clip=null step.clip.norm=1")
    assert "there is no group or key 'foo'" in refused("+foo.bar=1 foo.baz=2")
    assert compose(["+foo.bar=1", "foo.bar=2"]).foo.bar == 2
    assert "did you mean 'partition'" in refused(
        "hydra/launcher=vectorized_slurm hydra.launcher.job.partitoin=a"
    )


def test_wrong_config_dir():
    assert "--config-dir: there is no folder nowhere" in refused("", "nowhere")


def test_users_options_join_the_packages(mine):
    folder = mine("model/odd", "# Odd\n_target_: my.Odd\nwidth: 3\n")
    assert compose(["model=odd", "model.width=4"], folder).model == {
        "_target_": "my.Odd",
        "width": 4,
    }
    assert "did you mean 'width'" in refused("model=odd model.widht=1", folder)


def test_a_bare_name_is_a_list_of_one():
    assert compose(["regularizer=l2"]) == compose(["regularizer=[l2]"])


def test_empty_lists_leave_empty_nodes():
    cfg = compose(["regularizer=[]", "logger=[]"])
    assert cfg.regularizer == {} and cfg.logger == {}


def test_seed_is_short_for_its_base(mine):
    folder = mine("experiment/seeded", "# @package _global_\n# Seeded\nseed: 3\n")
    assert compose(["seed=4", "seed.init=7"]).seed == compose(["seed.base=4", "seed.init=7"]).seed
    assert derive_streams(compose(["experiment=seeded"], folder).seed) == derive_streams(3)
    assert compose(["experiment=seeded", "seed=5"], folder).seed.base == 5


def test_a_swept_option_may_have_keys_the_default_has_not():
    given = ["optimizer=momentum,nesterov", "optimizer.momentum=0.5"]
    cfg = ConfigLoader().load_configuration("train", given, RunMode.MULTIRUN)
    assert cfg.hydra.overrides.task == given
    with pytest.raises(ConfigError, match="belongs to"):
        ConfigLoader().load_configuration(
            "train", ["optimizer=adam,sgd", given[1]], RunMode.MULTIRUN
        )


def test_the_parser_is_made_where_help_is_checked_when_added(monkeypatch):
    """As Python 3.14 does, and one help of Hydra 1.3's is an object that is a text when shown."""
    add = argparse.ArgumentParser.add_argument

    def check_help(parser, action):
        assert action.help is None or "%" not in action.help

    def add_checked(parser, *names, **options):
        action = add(parser, *names, **options)
        parser._check_help(action)
        return action

    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check_help, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_checked)
    assert make_parser("truerisk train").prog == "truerisk train"
    with pytest.raises(TypeError):
        make_parser("again").add_argument("--own", help=object())


def test_a_surrounding_hydra_program_keeps_its_state(tmp_path):
    (tmp_path / "theirs.yaml").write_text("x: 1\n")
    behaviour = {"version_base": "1.2"} if ASKS_BASE else {}  # Hydra 1.4 has one alone
    with initialize_config_dir(str(tmp_path), job_name="theirs", **behaviour):
        held, base = GlobalHydra.instance().hydra, version.getbase()
        compose(["model=linear"])
        assert GlobalHydra.instance().hydra is held and version.getbase() == base
        assert hydra_compose("theirs").x == 1


def test_a_finished_runs_configuration_can_be_changed():
    run = compose(["data.num_train=50", "trainer.max_epochs=3"])
    cfg = override_config(run, ["data.label_noise=0.1", "trainer.devices=2"])
    assert (cfg.data.label_noise, cfg.data.num_train, cfg.trainer.devices) == (0.1, 50, 2)
    other = override_config(run, ["data=iris", "data.val=0.3"])
    assert other.data == compose(["data=iris", "data.val=0.3"]).data
    assert other.trainer == run.trainer
    assert OmegaConf.is_missing(run, "x") is False and run.data.label_noise == 0.0
    with pytest.raises(ConfigError, match=r"did you mean 'label_noise'.*config\.yaml"):
        override_config(run, ["data.label_nose=1"])


def test_streams_differ_by_name_and_by_base():
    drawn = [seed for base in range(200) for seed in derive_streams(base)]
    assert len(set(drawn)) == 800
    assert min(drawn) >= 0 and max(drawn) < 2**32
    assert abs(sum(drawn) / 800 / 2**32 - 0.5) < 4 * (1 / 12 / 800) ** 0.5


def test_streams_follow_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix_bits(1234567, i) for i in range(3)] == [n >> 32 for n in published]


def test_a_stream_set_by_hand_is_kept():
    given = derive_streams({"base": 5, "init": 0, "data": None, "order": 9, "noise": None})
    assert given == Streams(0, derive_streams(5).data, 9, derive_streams(5).noise)


def test_a_file_is_read_once_and_what_was_read_stays_as_it_is(monkeypatch):
    read = []
    load = ConfigRepository.load_config

    def count(self, config_path):
        found = load(self, config_path)
        read.extend([config_path] * (found is not None))
        return found

    monkeypatch.setattr(ConfigRepository, "load_config", count)
    monkeypatch.setattr("truerisk.config.compose.FILES", {})
    commands = [
        ["optimizer=adam", "optimizer.lr=0.1", "regularizer=[l2]"],
        ["optimizer=adam", "optimizer.weight_decay=0.3", "regularizer=[l2,dropout]"],
        ["optimizer=adam", "regularizer=[]", "data.source.seed=7"],
    ]
    with hydra_session():
        loader = ConfigLoader()
        composed = [loader.load_configuration("train", c, RunMode.RUN) for c in commands]
        assert len(read) == len(set(read)) and "optimizer/adam" in read
        for command, cfg in zip(commands, composed, strict=True):
            read.clear()
            alone = ConfigLoader().load_configuration("train", command, RunMode.RUN)
            assert resolve_config(cfg) == resolve_config(alone)
            # what Hydra has as classes is no file
            assert set(read) <= {"hydra/config", "hydra/launcher/basic", "hydra/sweeper/basic"}


def test_a_file_that_was_edited_is_read_again(tmp_path):
    option = tmp_path / "optimizer" / "mine.yaml"
    option.parent.mkdir()
    for lr in ("0.5", "0.25", "0.75"):
        option.write_text(f"_target_: torch.optim.SGD\nlr: {lr}\n")
        assert compose(["optimizer=mine"], str(tmp_path)).optimizer.lr == float(lr)


def test_loader_composes_what_plain_hydra_does():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        theirs = hydra_compose("train", ["optimizer=sgd", "regularizer=[l2]", "seed.base=3"])
    mine = compose(["optimizer=sgd", "regularizer=[l2]", "seed=3"])
    assert mine.choices.optimizer == "sgd"
    empty = {name: {} for name in LISTS}  # plain Hydra has no node for a list of nothing
    assert {k: v for k, v in mine.items() if k != "choices"} == {**empty, **theirs}
