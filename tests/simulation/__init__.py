"""A simulation of Tenure at full size over virtual time: the real Lua scripts on a real server, the real matchmaker,
ticker, reaper and lease book-keeping of the masters; workers, networks, faults and clocks are simulated.

``__main__.py`` is the program behind ``make simulate``. See docs/simulation.md for what is real, what is not, and what
it measured.
"""
