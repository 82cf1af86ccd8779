"""The command line `poise`: one file per command, and what the commands share on a terminal.

Nothing in it imports Keras before a command runs, so that `--help` and `--version` answer at once (see `package`).
"""
