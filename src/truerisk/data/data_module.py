"""The data of a run, for a ``lightning.Trainer``."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from truerisk.data.plan import BatchPlan, build_loader
from truerisk.data.run_data import RunData


# A file of its own: importing Lightning takes longer than a short run, which needs none of it.
class DataModule(RunData, LightningDataModule):
    """`RunData` as a LightningDataModule, on whose dataloaders any LightningModule can be fitted.

    Its arguments are those of `RunData`. Training batches come in the order of ``order_seed``, a
    run's ``seed.order``.
    """

    @classmethod
    def from_run(cls, data: RunData) -> DataModule:
        """Return data that a run has built, for a Trainer.

        Args:
            data: whose samples and splits are shared, not copied.
        """
        module = cls.__new__(cls)
        LightningDataModule.__init__(module)
        vars(module).update(vars(data))
        return module

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook: `prepare`."""
        self.prepare()

    def train_dataloader(self) -> DataLoader:
        """Build batches (x, y) of the training split, in the order that seed.order gives an epoch.

        They are those that our own runs take, where a step is one mini-batch. With
        data.source.weight each also has the ``weight`` [m] of its samples.
        """
        self.prepare()
        draws = self.sampling_chances()
        plan = BatchPlan(self.num_train, self.batch_size, seed=self.order_seed, draws=draws)
        return build_loader(self.train, plan.micro, plan)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Build batches (x, y) of the validation split, in its order; none without one."""
        return self._build_loaders("val")

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Build batches (x, y) of the test split, in its order; none without one."""
        return self._build_loaders("test")

    def predict_dataloader(self) -> DataLoader | list[DataLoader]:
        """Build batches (x, y) of the test split, in its order; none without one."""
        return self._build_loaders("test")

    def _build_loaders(self, name: str) -> DataLoader | list[DataLoader]:
        self.prepare()
        split = getattr(self, name)
        if split is None:
            return []
        if self.batch_size == "full":
            return build_loader(split, len(split))
        return build_loader(split, int(self.batch_size))
