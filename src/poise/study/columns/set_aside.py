"""The kind of a column that is not used. It has its own file, so that `poise show` imports neither pandas nor Keras."""

SET_ASIDE = "set aside"
