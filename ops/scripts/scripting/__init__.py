"""What the scripts share that has to do with no store, master or worker in particular: ``console`` is how they speak,
``store_kinds`` tells from a URL what a store consists of. ``restarting`` and ``safekeeping`` build on it.
"""
