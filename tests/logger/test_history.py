"""What a run logged, read back."""

from __future__ import annotations

import numpy as np

from truerisk.logger.history import read_history, read_metric_rows


def test_a_metrics_rows_are_selected_as_pandas_does(tmp_path):
    lines = ["4,1,risk/val,0.5", "0,0,risk/val,2", "2,,risk/val,1", "2,,risk/val,7", "4,1,b,3"]
    (tmp_path / "metrics.csv").write_text("step,epoch,name,value\n" + "\n".join(lines) + "\n")
    rows, table = read_metric_rows(tmp_path), read_history(tmp_path)
    for name in ("risk/val", "b", "none"):
        found = rows.select(name)
        theirs = table[table.name == name].drop_duplicates("step").sort_values("step")
        assert found.step.tolist() == theirs.step.tolist() and len(found) == len(theirs)
        np.testing.assert_array_equal(found.value, theirs.value)
        np.testing.assert_array_equal(found.epoch, theirs.epoch.to_numpy(float, na_value=np.nan))
