"""Fits a polynomial to a curve; evaluated on workers that have never seen this package."""
