"""What the client costs, beside what people use today: ``python -m benchmarks [NAME …] [--quick]``.

Each benchmark prints its tables and writes them, with a picture where one says more, into
``benchmarks/results``. These are reports and no gates: machines are shared and noisy, so rivals
run in the same run as we do, in turn, and ratios tell more than seconds. ``--quick`` makes a
second's work of each, which proves that it runs, and measures nothing.
"""
