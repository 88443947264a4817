"""What the overlay costs, as ratios to what it cannot do without: ``python -m benchmarks``.

Figures of one run compare with each other, not with those of another machine or hour.
"""
