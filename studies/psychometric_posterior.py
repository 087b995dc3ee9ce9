"""The posterior of a psychometric function on a grid: our own, or psignifit's where wanted.

A posterior has axes E, G, L, T, W for eta, gamma, lambda, threshold, width.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from studies.psychometric_model import (
    PARAMETERS,
    Axis,
    Model,
    PsychometricError,
    SigmoidName,
    as_array,
)

Array = NDArray[np.float64]

_COARSE = {"eta": 8, "gamma": 8, "lambda": 8, "threshold": 25, "width": 25}
_FINE = {"eta": 10, "gamma": 1, "lambda": 14, "threshold": 40, "width": 40}
_FINE_FREE_GUESS = {"eta": 8, "gamma": 10, "lambda": 10, "threshold": 32, "width": 32}
_NEGLIGIBLE_MASS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginal:
    """Posterior distribution of one quantity, to be drawn or compared. (n,)"""

    values: Array
    density: Array
    cdf: Array
    """It need not run from 0 to 1: the mass of an infinite threshold lies outside `values`."""

    def quantile(self, probability: float) -> float | None:
        """The value with `probability` below it; None where that is infinite."""
        if not self.cdf[0] <= probability <= self.cdf[-1]:
            return None
        return float(np.interp(probability, self.cdf, self.values))


@dataclass(frozen=True, slots=True)
class Posterior:
    """Probability of each cell of a grid, summing to 1. (E, G, L, T, W)"""

    axes: Mapping[str, Axis]
    mass: Array
    model: Model

    def mass_of(self, *names: str) -> Array:
        """Summed over all other parameters, in the order of the grid."""
        others = tuple(i for i, name in enumerate(PARAMETERS) if name not in names)
        return np.asarray(self.mass.sum(axis=others), dtype=np.float64)

    def depends_on(self, name: str) -> bool:
        """Whether the parameter was estimated; a guess rate may be the lapse rate."""
        return not self.axes[self._source(name)].is_fixed

    def marginal(self, name: str, proportion: float) -> Marginal:
        """Of a free parameter, or of the level at `proportion`, unscaled or scaled."""
        if name == "threshold_unscaled":
            return _distribution_of_level(self, proportion, unscaled=True)
        if name == "threshold_scaled":
            return _distribution_of_level(self, proportion, unscaled=False)
        axis = self.axes[self._source(name)]
        density = self.mass_of(self._source(name)) / axis.weights
        # The root of a density is smooth where its prior falls to 0, which its logarithm is not.
        values = np.linspace(axis.borders[0], axis.borders[-1], 801)
        density = CubicSpline(axis.nodes, np.sqrt(density))(values) ** 2
        cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return distribution(values, cdf / cdf[-1])

    def _source(self, name: str) -> str:
        return "lambda" if name == "gamma" and self.model.guess_is_lapse else name

    def means(self) -> dict[str, float]:
        """Of the five parameters; the guess rate may be the lapse rate."""
        names = {name: self._source(name) for name in PARAMETERS}
        return {k: float(self.mass_of(name) @ self.axes[name].nodes) for k, name in names.items()}

    def samples(self, n_samples: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draws that do not show the grid: from cells, reweighted by the exact posterior."""
        n_candidates = 4 * n_samples
        total = np.cumsum(self.mass)
        picked = np.searchsorted(total, rng.random(n_candidates) * total[-1], side="right")
        cells = np.unravel_index(np.minimum(picked, self.mass.size - 1), self.mass.shape)
        drawn, log_volume = {}, np.zeros(n_candidates)
        for name, cell in zip(PARAMETERS, cells, strict=True):
            axis = self.axes[name]
            low, size = axis.borders[cell], np.diff(axis.borders)[cell]
            drawn[name] = low + rng.random(n_candidates) * size
            log_volume += 0.0 if axis.is_fixed else np.log(size)
        log_weights = self.model.log_posterior(drawn) + log_volume - np.log(self.mass[cells])
        weights = np.cumsum(np.exp(log_weights - log_weights.max()))
        places = (np.arange(n_samples) + rng.random()) / n_samples * weights[-1]
        kept = rng.permutation(np.searchsorted(weights, places))
        return {name: drawn[self._source(name)][kept] for name in PARAMETERS}


def by_grid(model: Model) -> tuple[Posterior, dict[str, float], dict[str, float]]:
    """Posterior, mode and means: coarse grids over ever better bounds, then a fine one."""
    bounds = dict(model.bounds)
    mode: dict[str, float] | None = None
    for _ in range(20):
        posterior, best = _on_grid(model, _axes(bounds, _COARSE), 400)
        mode = _mode(model, best if mode is None else mode, bounds)
        if model.height(mode) > model.height(best) + 5:
            # So many trials that the posterior falls between the nodes: start from the mode.
            bounds = _around(model, mode)
            continue
        better = {name: _better(posterior, name, bounds[name], mode[name]) for name in PARAMETERS}
        changes = [
            (better[name][1] - better[name][0]) / (bounds[name][1] - bounds[name][0])
            for name in PARAMETERS
            if model.is_free(name)
        ]
        bounds = better
        if min(changes) > 0.7 and max(changes) <= 1:
            break
    counts = _FINE_FREE_GUESS if model.is_free("gamma") else _FINE
    posterior, best = _on_grid(model, _axes(bounds, counts), 1500)
    mode = _mode(model, best, bounds)
    if model.guess_is_lapse:
        mode["gamma"] = mode["lambda"]
    return posterior, mode, posterior.means()


def _axes(bounds: Mapping[str, tuple[float, float]], counts: Mapping[str, int]) -> dict[str, Axis]:
    """Even steps where the posterior falls to 0 at both ends, Gauss–Legendre nodes elsewhere.

    η and the two rates mostly have their largest density at the bound, where the trapezoidal rule
    is poor.
    """
    axes = {}
    for name, (low, high) in bounds.items():
        if low == high:
            axes[name] = Axis(np.array([low]), np.ones(1), np.array([low, low]))
        elif name in ("threshold", "width"):
            nodes = np.linspace(low, high, counts[name])
            borders = np.concatenate([[low], (nodes[1:] + nodes[:-1]) / 2, [high]])
            axes[name] = Axis(nodes, np.diff(borders), borders)
        else:
            standard, weights = np.polynomial.legendre.leggauss(counts[name])
            nodes, weights = low + (high - low) * (standard + 1) / 2, weights * (high - low) / 2
            axes[name] = Axis(nodes, weights, low + np.concatenate([[0.0], np.cumsum(weights)]))
    return axes


def _on_grid(
    model: Model, axes: Mapping[str, Axis], n_table: int
) -> tuple[Posterior, dict[str, float]]:
    log_posterior = model.log_posterior_on(axes, n_table)
    where = np.unravel_index(int(log_posterior.argmax()), log_posterior.shape)
    mass = np.exp(log_posterior - log_posterior[where])
    for i, name in enumerate(PARAMETERS):
        mass *= axes[name].weights.reshape([-1 if j == i else 1 for j in range(5)])
    mass /= mass.sum()
    best = {name: float(axes[name].nodes[i]) for name, i in zip(PARAMETERS, where, strict=True)}
    return Posterior(axes, mass, model), best


def _better(
    posterior: Posterior, name: str, bounds: tuple[float, float], mode: float
) -> tuple[float, float]:
    """The nodes with more than negligible mass, and one more on each side: tighter or wider."""
    axis = posterior.axes[name]
    if axis.is_fixed:
        return bounds
    kept = np.flatnonzero(posterior.mass_of(name) > _NEGLIGIBLE_MASS)
    first, last = int(kept[0]), int(kept[-1])
    step = (bounds[1] - bounds[0]) / 4
    low = float(axis.nodes[first - 1]) if first else bounds[0] - step
    high = float(axis.nodes[last + 1]) if last + 1 < len(axis.nodes) else bounds[1] + step
    margin = (high - low) / 10
    least, most = posterior.model.bounds[name]
    return max(min(low, mode - margin), least), min(max(high, mode + margin), most)


def _around(model: Model, mode: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Where the posterior falls to e^−10 along each axis through the mode, within the bounds."""
    found = {}
    for name, ends in model.bounds.items():
        limits = []
        for end in ends:
            # From the mode to the end, in steps that halve from the whole to 1e-9 of it.
            places = mode[name] + (end - mode[name]) * 0.5 ** np.arange(30)
            at = {k: np.full(30, places if k == name else v) for k, v in mode.items()}
            is_low = model.log_posterior(at) < model.height(mode) - 10
            limits.append(float(places[is_low][-1]) if is_low.any() else end)
        found[name] = (limits[0], limits[1])
    return found


def _mode(
    model: Model, start: Mapping[str, float], box: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Joint mode within the bounds by L-BFGS-B from `start`, in units of the box."""
    free = [name for name in PARAMETERS if model.is_free(name)]
    low, high = np.array([box[name] for name in free]).T
    least, most = np.array([model.bounds[name] for name in free]).T
    size = high - low
    from_u, to_u = (least - low) / size, (most - low) / size

    def at(u: Array) -> Array:
        # Rounding must not carry a rate out of its bounds.
        return np.asarray(np.clip(low + size * u, least, most), dtype=np.float64)

    def objective(u: Array) -> tuple[float, Array]:
        # The point itself, and one to each side along each axis, at once.
        up, down = np.minimum(u + 1e-5, to_u), np.maximum(u - 1e-5, from_u)
        along = np.eye(len(u), dtype=bool)
        points = at(np.vstack([u, np.where(along, up, u), np.where(along, down, u)]))
        where = {name: np.full(len(points), start[name]) for name in PARAMETERS}
        where |= dict(zip(free, points.T, strict=True))
        # A finite cliff: from an infinite one the line search would not come back.
        found = -np.maximum(model.log_posterior(where) - offset, -1e4)
        rises = found[1 : len(u) + 1] - found[len(u) + 1 :]
        return float(found[0]), rises / (up - down)

    # Counts in the millions would leave few digits for the differences.
    offset = model.height(start)
    u = (np.array([start[name] for name in free]) - low) / size
    for _ in range(2):
        u = minimize(
            objective,
            u,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(from_u.tolist(), to_u.tolist(), strict=True)),
            options={"ftol": 1e-15, "gtol": 1e-7, "maxiter": 200},
        ).x
    return {**start, **dict(zip(free, at(u).tolist(), strict=True))}


def wants_psignifit(engine: str) -> bool:
    """Whether the posterior shall be psignifit's; refuses it where it is not installed."""
    if engine not in ("own", "psignifit", "auto"):
        raise PsychometricError(f"engine={engine!r}; choose own, psignifit or auto.")
    is_installed = engine != "own" and find_spec("psignifit") is not None
    if engine == "psignifit" and not is_installed:
        raise PsychometricError(
            "psignifit is not installed; install the extra `psychometrics`, or use engine='own', "
            "which needs nothing."
        )
    return is_installed


def by_psignifit(
    model: Model, sigmoid: SigmoidName
) -> tuple[Posterior, dict[str, float], dict[str, float]]:
    """Posterior, mode and means of psignifit 4, with its own defaults.

    Intervals are read off its posterior as off ours. Its own are lower by half a step of its grid,
    because it takes the mass up to the middle of a cell for that up to its end.
    """
    import psignifit

    names = {"normal": "norm", "cauchy": "tdist"}
    fixed = {name: model.bounds[name][0] for name in PARAMETERS if not model.is_free(name)}
    guess = fixed.get("gamma", 0.0)
    experiment = "yes/no"
    if model.guess_is_lapse:
        experiment = "equal asymptote"
    elif guess and guess == 1 / round(1 / guess):
        experiment = f"{round(1 / guess)}AFC"
    if experiment != "yes/no":
        fixed.pop("gamma")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice on the prior; `cautions` gives ours
        found = psignifit.psignifit(
            np.column_stack([model.levels, model.n_correct, model.n_trials]),
            sigmoid=names.get(sigmoid, sigmoid),
            experiment_type=experiment,
            fixed_parameters=fixed,
            stimulus_range=(model.low, model.low + model.span),
            width_min=model.smallest_width,
            verbose=False,
            debug=True,
        )
    mass = np.asarray(found.debug["posteriors"], dtype=np.float64)
    if model.guess_is_lapse:
        mass = mass[:, None]
    axes = {}
    for name in PARAMETERS:
        is_axis = not (name == "gamma" and model.guess_is_lapse)
        nodes = np.asarray(found.parameter_values[name] if is_axis else [0.0], dtype=np.float64)
        borders = np.concatenate([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])
        axes[name] = Axis(nodes, np.diff(borders) if len(nodes) > 1 else np.ones(1), borders)
    mode, mean = (
        {name: float(values[name]) for name in PARAMETERS}
        for values in (found.parameter_estimate_MAP, found.parameter_estimate_mean)
    )
    return Posterior(axes, mass, model), mode, mean


def _distribution_of_level(posterior: Posterior, proportion: float, *, unscaled: bool) -> Marginal:
    """Posterior of threshold + shift · width, where the shift may depend on lapses and guesses.

    The mass of a cell is spread evenly inside it, along threshold, width and lapse rate. R pairs of
    rates at which the curve reaches the proportion.
    """
    standard, axes = posterior.model.standard, posterior.axes
    if unscaled:
        mass = posterior.mass_of("threshold", "width")[None]
        shift = standard.shift(as_array([proportion]))
        below = 0.0
    else:
        parts = posterior.mass_of("gamma", "lambda", "threshold", "width")[:, :, None]
        lapse = _inside(axes["lambda"])
        is_lapse = posterior.model.guess_is_lapse
        guess = lapse if is_lapse else axes["gamma"].nodes[:, None, None]
        inner = (proportion - guess) / np.maximum(1 - lapse - guess, 1e-300)
        inner = np.broadcast_to(inner, (*parts.shape[:2], lapse.shape[1]))
        parts = np.repeat(parts / lapse.shape[1], lapse.shape[1], axis=2)
        below = float(parts[inner <= 0].sum())
        is_reached = (inner > 0) & (inner < 1)
        mass, shift = parts[is_reached], standard.shift(inner[is_reached])
    if not mass.sum():
        return Marginal(values=np.zeros(1), density=np.zeros(1), cdf=as_array([below]))
    n_points = int(np.clip(400_000 // mass.size, 1, 100))
    # An additive sequence, not even steps: these would fall together again in the sum.
    places = as_array(np.arange(mass.size * n_points).reshape(*mass.shape, n_points))
    threshold = _spread(axes["threshold"], as_array(places * 0.7548776662466927))
    width = _spread(axes["width"], as_array(np.moveaxis(places * 0.5698402909980532, 2, 1)))
    points = (threshold + shift[:, None, None, None] * np.moveaxis(width, 1, 2)).ravel()
    masses = np.repeat(mass.ravel() / n_points, n_points)
    # The far ends belong to hardly any mass: from there to where the mass is, step by step.
    borders = as_array(np.linspace(points.min(), points.max(), 401))
    for _ in range(4):
        bins = np.clip((points - borders[0]) / (borders[1] - borders[0]), -1, 400)
        sums = np.bincount(np.floor(bins).astype(np.intp) + 1, weights=masses, minlength=402)
        cdf = as_array(below + np.cumsum(sums)[:401])
        some = np.flatnonzero(sums[1:401] > _NEGLIGIBLE_MASS / 10)
        found = distribution(borders, cdf)
        borders = as_array(np.linspace(borders[some[0]], borders[some[-1] + 1], 401))
    return found


def _spread(axis: Axis, places: Array) -> Array:
    """Places inside the cells, of which only the fractions count. (R, cells, …)"""
    low, size = axis.borders[:-1], np.diff(axis.borders)
    return np.asarray(low[:, None, None] + size[:, None, None] * (places % 1), dtype=np.float64)


def _inside(axis: Axis) -> Array:
    """Four places inside each cell; the one node of a parameter that is fixed. (n, 4)"""
    if axis.is_fixed:
        return axis.nodes[:, None]
    steps = (np.arange(4) + 0.5) / 4
    return np.asarray(axis.borders[:-1, None] + np.diff(axis.borders)[:, None] * steps)


def distribution(values: Array, cdf: Array) -> Marginal:
    """With the density that belongs to the cdf."""
    return Marginal(values=values, density=np.gradient(cdf, values), cdf=cdf)
