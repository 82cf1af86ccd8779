"""Names, values and classes that are code elsewhere: in HTML, in scripts, in templates and in pictures."""

import numpy as np
import pandas as pd

NAMES = [
    *("<script>alert(1)</script>", "</script><b>\"quoted\" & 'more'</b>", "{{ 7 * 7 }} %{y} $x$\n{% raise %}"),
    *("<b>bold</b>", '{{ 7 * 7 }} & "it\'s"\nin two lines'),
]
KIND, VALUES = "<img src=x onerror=alert(2)>", ["<i>a</i>", "b\n{{ 1 }}", "</script>"]
TARGET, CLASSES = "</script><script>alert(3)</script>", ["<u>yes</u>", "</script>no\n{{ 7 * 7 }}'\""]


def hostile_frame(rows: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, len(NAMES))), columns=NAMES)
    frame[KIND] = random.choice(VALUES, rows)
    frame[TARGET] = np.where(frame[NAMES[2]] + 0.1 * random.normal(size=rows) > 0, *CLASSES)
    return frame
