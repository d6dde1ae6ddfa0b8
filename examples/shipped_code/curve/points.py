"""The curve."""

POINTS = [(x / 50, 1 / (1 + 25 * (x / 50) ** 2)) for x in range(-50, 51)]
