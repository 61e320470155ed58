"""What hangs on a table: one kind of dependent per file.

For the swap: ``prepare`` (before it, outside any lock), ``swap`` (the statements in it),
``tripwire`` (what guards the retired table), ``inventory`` (to compare before and after).
For the checks: each kind of dependent that is not carried yet is found by a file of its own.
"""
