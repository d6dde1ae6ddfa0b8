"""The vocabulary that every part of Tenure shares: states, ids, limits, errors, task specifications, settings."""
