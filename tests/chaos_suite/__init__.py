"""The chaos suite: a whole Tenure under a seeded schedule of faults, its history, and a judge of that history.

``run.py`` is one seed from start to end, ``__main__.py`` the program behind ``make chaos``. See docs/chaos.md.
"""
