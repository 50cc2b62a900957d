#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0 (CPU)
#
# Guess:  ModelCheckpoint saves the weights that a module has, and by the clock where that was asked for, whether
#         Lightning steps the optimizer or the module does (automatic_optimization = False).
# Seen:   where the module does, train_time_interval is never looked at: nothing is saved, without a word. And where
#         the module happens to have a dict `saved_models` and a submodule `layer`, every_n_train_steps writes what
#         that dict holds under its largest key in the place of the layer's weights.
# So:     refuse or replace checkpoints by the clock under manual optimization; keep those two names out of such
#         modules.
#
# Output seen:
#   lightning 2.6.6: every 0 s in 5 steps: automatic saves 5 times, manual 0
#   lightning 2.6.6: every step: layer 0.0, saved 0.0; with a dict of its name: layer 0.0, saved 7.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 lightning==2.6.6
cat > finding.py <<'EOF'
import logging
import sys
import warnings
from datetime import timedelta

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self, automatic, keep=False):
        super().__init__()
        self.automatic_optimization = automatic
        self.layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.layer.weight)
        if keep:
            self.saved_models = {"best": {"weight": torch.full((1, 1), 7.0)}}

    def training_step(self, batch, index):
        loss = 0 * self.layer(batch[0]).sum()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saved(ModelCheckpoint):
    count = 0

    def _save_checkpoint(self, trainer, path):
        super()._save_checkpoint(trainer, path)
        self.count += 1
        self.path = path


def fit(module, **when):
    saved = Saved("kept", save_top_k=-1, save_on_train_epoch_end=False, **when)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(5, 1)))
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, callbacks=[saved],
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, data)
    return saved


def weights(module):
    saved = fit(module, every_n_train_steps=1)
    state = torch.load(saved.path, weights_only=True)["state_dict"]
    return module.layer.weight.item(), state["layer.weight"].item()


by_clock = [fit(Module(how), train_time_interval=timedelta(0)).count for how in (True, False)]
print(f"lightning {lightning.__version__}: every 0 s in 5 steps: automatic saves {by_clock[0]} times, "
      f"manual {by_clock[1]}")
plain, named = weights(Module(False)), weights(Module(False, keep=True))
print(f"lightning {lightning.__version__}: every step: layer {plain[0]}, saved {plain[1]}; "
      f"with a dict of its name: layer {named[0]}, saved {named[1]}")
sys.exit(not (by_clock[0] > 1 and by_clock[1] == 0 and plain == (0.0, 0.0) and named == (0.0, 7.0)))
EOF
venv/bin/python finding.py
