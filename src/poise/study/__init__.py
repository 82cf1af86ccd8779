"""From a table to a report: `poise.run_study`, the `poise.Study` that it returns, and the estimators for scikit-learn.

`sources` and `tables` read the data, `columns` encodes them, `splits` makes folds and test rows, `candidates` has the
penalties and networks, `scores` and `findings` the results, and `report` writes them down. Public names are in `poise`.
"""
