"""What restart-master and restart-workers are made of.

``processes`` ends and starts processes, ``snapshot`` looks at the broker, ``accounting`` compares two looks and says
which promise broke, ``report`` writes that down; ``master`` and ``workers`` are the two commands.
"""
