"""Decisions, pure: no I/O, no clocks of their own. Everything here is tested in milliseconds."""
