"""Cells that differ only in numbers, trained as one stacked model."""
