from math import isfinite, log

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import norm

from studies.mixed_likelihood import (
    crossed_log_likelihood,
    random_intercept_log_likelihood,
)
from tests.studies.test_mixed import crossed_answers, spread_out


def exact_log_likelihood(n_correct, n_trials, intercept, sd):
    """By brute force, one reader after the other."""
    total = 0.0
    for x, n in zip(n_correct, n_trials, strict=True):

        def density(u, x=x, n=n):
            p = expit(intercept + sd * u)
            return p**x * (1 - p) ** (n - x) * norm.pdf(u)

        total += log(
            quad(density, -12, 12, epsabs=0, epsrel=1e-12, limit=400, points=(-2, 0, 2))[0]
        )
    return total


SMALL = ([3, 8, 1, 5, 10, 2], [5, 10, 6, 9, 10, 7])


@pytest.mark.parametrize("sd", [0.3, 1.0, 2.5])
def test_quadrature_converges_to_brute_force(sd):
    right, readers = spread_out(*SMALL, range(6))
    exact = exact_log_likelihood(*SMALL, 0.4, sd)
    error = [
        abs(
            random_intercept_log_likelihood(right, readers, coefficients=[0.4], sd=sd, n_nodes=n)
            - exact
        )
        for n in (1, 3, 9, 25, 60)
    ]
    assert error[0] > error[1] > error[2] > error[3]
    assert error[3] < 1e-6
    assert error[4] < 1e-8


def test_one_node_is_laplaces_approximation():
    right, readers = spread_out(*SMALL, range(6))
    intercept, sd = 0.4, 1.3
    total = 0.0
    for x, n in zip(*SMALL, strict=True):

        def log_joint(u, x=x, n=n):
            eta = intercept + sd * u
            return x * eta - n * np.logaddexp(0, eta) - u**2 / 2

        mode = minimize_scalar(lambda u: -log_joint(u), bracket=(-1, 1), options={"xtol": 1e-12}).x
        p = expit(intercept + sd * mode)
        total += log_joint(mode) - log(1 + sd**2 * n * p * (1 - p)) / 2
    found = random_intercept_log_likelihood(
        right, readers, coefficients=[intercept], sd=sd, n_nodes=1
    )
    assert found == pytest.approx(total, abs=1e-7)


def test_without_spread_the_likelihood_is_that_of_independent_answers():
    right, readers = spread_out(*SMALL, range(6))
    plain = sum(
        x * log(expit(0.4)) + (n - x) * log(expit(-0.4)) for x, n in zip(*SMALL, strict=True)
    )
    for n_nodes in (1, 2, 25):
        found = random_intercept_log_likelihood(
            right, readers, coefficients=[0.4], sd=0, n_nodes=n_nodes
        )
        assert found == pytest.approx(plain, abs=1e-10)
    cases = np.arange(len(right)) % 7
    found = crossed_log_likelihood(
        right, readers, cases, coefficients=[0.4], sd_readers=0, sd_cases=0
    )
    assert found == pytest.approx(plain, abs=1e-10)


def test_extreme_parameters_leave_the_likelihood_finite():
    right, readers = spread_out([300, 0, 150], [300] * 3, range(3))
    for intercept in (-30.0, 0.0, 30.0):
        for sd in (0.01, 1.0, 40.0):
            found = random_intercept_log_likelihood(right, readers, coefficients=[intercept], sd=sd)
            assert isfinite(found)
            assert found < 0


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 6)])
def test_crossed_laplace_is_laplace_on_the_whole_hessian(shape):
    rng = np.random.default_rng(sum(shape))
    right, readers, cases = crossed_answers(rng, *shape)
    keep = rng.random(len(right)) < 0.85
    keep[: shape[1]] = True
    right, readers, cases = right[keep], readers[keep], cases[keep]
    n_readers, n_cases = readers.max() + 1, cases.max() + 1
    intercept, sd_readers, sd_cases = 0.3, 0.9, 1.4
    loadings = np.column_stack(
        [
            sd_readers * (readers[:, None] == np.arange(n_readers)),
            sd_cases * (cases[:, None] == np.arange(n_cases)),
        ]
    )

    def loss(u):
        eta = intercept + loadings @ u
        return -(right @ eta - np.logaddexp(0, eta).sum() - u @ u / 2)

    def slope(u):
        return -(loadings.T @ (right - expit(intercept + loadings @ u)) - u)

    mode = minimize(loss, np.zeros(loadings.shape[1]), jac=slope, options={"gtol": 1e-10}).x
    p = expit(intercept + loadings @ mode)
    hessian = (loadings.T * (p * (1 - p))) @ loadings + np.eye(loadings.shape[1])
    expected = -loss(mode) - np.linalg.slogdet(hessian)[1] / 2
    found = crossed_log_likelihood(
        right,
        readers,
        cases,
        coefficients=[intercept],
        sd_readers=sd_readers,
        sd_cases=sd_cases,
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_crossed_laplace_is_near_brute_force():
    # Two readers by a grid; given both, cases are independent.
    table = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 1, 0]])
    grid = np.linspace(-7, 7, 141)
    weights = norm.pdf(grid) * (grid[1] - grid[0])
    u, v, w = grid[:, None, None], grid[None, :, None], grid[None, None, :]
    integral = np.ones((141, 141))
    for one, other in table.T:
        p, q = expit(0.4 + 0.5 * u + 0.6 * w), expit(0.4 + 0.5 * v + 0.6 * w)
        given_case = (p if one else 1 - p) * (q if other else 1 - q)
        integral *= given_case @ weights
    exact = log(weights @ integral @ weights)
    readers, cases = (index.ravel() for index in np.indices(table.shape))
    found = crossed_log_likelihood(
        table.ravel(), readers, cases, coefficients=[0.4], sd_readers=0.5, sd_cases=0.6
    )
    assert found == pytest.approx(exact, abs=0.03)


def test_crossed_effects_without_spread_between_cases_are_one_random_intercept():
    right, readers, cases = crossed_answers(np.random.default_rng(1), 6, 15)
    for sds, clusters in (((0.8, 0.0), readers), ((0.0, 0.8), cases)):
        crossed = crossed_log_likelihood(
            right, readers, cases, coefficients=[0.2], sd_readers=sds[0], sd_cases=sds[1]
        )
        one = random_intercept_log_likelihood(
            right, clusters, coefficients=[0.2], sd=0.8, n_nodes=1
        )
        assert crossed == pytest.approx(one, abs=1e-9)
