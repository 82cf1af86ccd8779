"""Generated tables that resemble two well-known ones, which scikit-learn does not contain.

They have the shape, the kinds of columns, the gaps and the skewed target of "Hitters" (An Introduction to Statistical
Learning) and of "House Prices" (Ames, Kaggle). No value is copied from them.
"""

import numpy as np
import pandas as pd


def make_hitters(seed: int = 0) -> pd.DataFrame:
    """Return 263 rows of baseball players: 16 correlated counts, 3 categories, and a heavy-tailed `Salary`."""
    random = np.random.default_rng(seed)
    rows = 263
    years = np.clip(random.geometric(0.14, rows), 1, 24)
    skill = random.normal(size=rows)
    at_bats = np.clip(random.normal(400, 140, rows), 20, 690)
    rates = {
        "Hits": 0.26 + 0.02 * skill,
        "HmRun": 0.028 * np.exp(0.5 * skill),
        "Runs": 0.13 + 0.015 * skill,
        "RBI": 0.12 * np.exp(0.2 * skill),
        "Walks": 0.095 * np.exp(0.2 * skill),
    }
    career = at_bats * years * random.uniform(0.6, 1.0, rows)
    frame = pd.DataFrame({"AtBat": at_bats.round(), "Years": years, "CAtBat": career.round()})
    for name, rate in rates.items():
        frame[name] = random.poisson(at_bats * rate)
        frame[f"C{name}"] = random.poisson(career * rate)
    frame["PutOuts"] = random.gamma(1.2, 240, rows).round()
    frame["Assists"] = random.gamma(0.6, 180, rows).round()
    frame["Errors"] = random.poisson(2 + 0.05 * frame["Assists"])
    frame["League"] = random.choice(["A", "N"], rows)
    frame["Division"] = random.choice(["E", "W"], rows)
    moves = random.random(rows) < 0.07
    frame["NewLeague"] = np.where(moves, random.choice(["A", "N"], rows), frame["League"])
    log_salary = (
        5.9 + 0.55 * np.log(np.minimum(years, 6)) - 0.6 + 0.35 * skill + 0.0015 * (at_bats - 400)
        - 0.12 * (frame["Division"] == "W") - 0.04 * np.maximum(years - 12, 0) + 0.45 * random.normal(size=rows)
    )  # fmt: skip
    frame["Salary"] = np.exp(log_salary).round(1)
    for name in ("PutOuts", "Assists", "Errors"):
        frame.loc[random.random(rows) < 0.03, name] = np.nan
    return frame


def make_house_prices(seed: int = 0) -> pd.DataFrame:
    """Return 1,460 rows of houses: 36 numbers, 43 categories, many with gaps, and a skewed `SalePrice`."""
    random = np.random.default_rng(seed)
    rows = 1460
    place = random.choice(25, rows, p=random.dirichlet(np.full(25, 2.0)))
    wealth = random.normal(size=25)[place]
    size, quality = 0.4 * wealth + random.normal(size=rows), 0.6 * wealth + 0.8 * random.normal(size=rows)
    year = np.clip(1972 + 18 * wealth + 20 * random.normal(size=rows), 1872, 2010).round()
    latent = np.stack([size, quality, (year - year.mean()) / year.std(), random.normal(size=rows)])
    columns: dict[str, np.ndarray] = {
        "GrLivArea": np.exp(7.25 + 0.3 * size + 0.08 * random.normal(size=rows)).round(),
        "OverallQual": np.clip((6 + 1.4 * quality + 0.4 * random.normal(size=rows)).round(), 1, 10),
        "YearBuilt": year,
    }
    for number in range(18):  # areas: skewed, and zero where a house has no such part
        mixture = random.normal(size=4) @ latent / 2 + random.normal(size=rows)
        area = np.exp(5.5 + 0.5 * mixture).round()
        columns[f"Area{number + 1}"] = np.where(random.random(rows) < random.beta(0.5, 0.7), 0, area)
    for number in range(15):  # small counts, grades, and months
        mixture = random.normal(size=4) @ latent / 2 + random.normal(size=rows)
        columns[f"Count{number + 1}"] = np.clip((2 + mixture).round(), 0, 12)
    columns["Neighborhood"] = np.array([f"N{number:02}" for number in range(25)])[place]
    for number in range(42):  # categories: few or many levels, often one that nearly all rows have
        levels = int(random.integers(2, 10))
        mixture = random.normal(size=4) @ latent / 2 + random.normal(size=rows)
        cuts = np.sort(random.beta(0.4, 0.4, levels - 1))
        codes = np.searchsorted(np.quantile(mixture, cuts), mixture)
        columns[f"Kind{number + 1}"] = np.array([f"{chr(65 + number % 26)}{code}" for code in codes])
    log_price = (
        12.0 + 0.22 * size + 0.16 * quality + 0.08 * latent[2] + 0.05 * size * quality + 0.1 * wealth
        + 0.04 * (columns["Area1"] > np.median(columns["Area1"])) + 0.12 * random.normal(size=rows)
    )  # fmt: skip
    frame = pd.DataFrame(columns)
    for name in random.choice([*columns], 19, replace=False):
        frame.loc[random.random(rows) < random.beta(0.5, 1.5), name] = np.nan
    return frame.assign(SalePrice=(np.exp(log_price) / 100).round() * 100)
