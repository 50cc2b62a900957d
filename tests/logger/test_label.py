from truerisk.logger.label import recipe_name, recipe_tags


def test_names_without_options_come_from_the_targets():
    config = {
        "data": {
            "_target_": "truerisk.data.DataModule",
            "source": {"_target_": "truerisk.data.mnist1d"},
        },
        "model": {"_target_": "truerisk.model.MLP"},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
        "regularizer": {"l2": {"coefficient": 1}, "dropout": None},
    }
    assert recipe_name(config) == "mnist1d-mlp-adam"
    assert recipe_tags(config) == ["mnist1d", "mlp", "adam", "l2", "dropout"]


def test_an_empty_config_has_a_name_too():
    assert recipe_name({}) == "run" and recipe_tags({"regularizer": None}) == []
