"""Empirical and true risk: their estimates, and what is measured when.

Who reads what was measured imports `truerisk.risk.measured` alone, and so no torch.
"""
