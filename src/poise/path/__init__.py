"""Every strength and every fold at once: `poise.fit_path` and the `poise.RegularizationPath` that it returns.

`fit` checks the arguments and `solve` runs the grid and its stages. `lanes` are the trainings, `executors` run them,
`data` are their rows. `result`, `tables`, `plots` and `storage` show and save a path. Public names are in `poise`.
"""
