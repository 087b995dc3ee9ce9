"""What tests of results look at: limits of an interval, and every number however deep."""

from dataclasses import fields, is_dataclass


def limits(estimate):
    return estimate.ci_low, estimate.ci_high


def every_number(value):
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, tuple | list):
        for part in value:
            yield from every_number(part)
    elif isinstance(value, int | float):
        yield value
