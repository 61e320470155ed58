"""When will nothing be pending any more?"""

from __future__ import annotations

from restructure.engine.forecast import Forecaster


def test_no_forecast_is_made_from_too_little() -> None:
    forecaster = Forecaster(window=30, enough=5)
    assert forecaster.forecast(10) is None
    forecaster.add(100.0, 0, 0)
    forecaster.add(104.0, 0, 400)
    assert forecaster.forecast(10) is None


def test_the_gain_over_what_arrives_is_what_counts() -> None:
    forecaster = Forecaster(window=30, enough=5)
    forecaster.add(100.0, 1_000, 0)
    forecaster.add(110.0, 2_000, 3_000)
    forecast = forecaster.forecast(4_000)
    assert forecast is not None
    assert (forecast.arriving, forecast.applied, forecast.seconds) == (100, 300, 20)
    assert str(forecast).startswith("zero at ")


def test_a_source_that_is_faster_than_we_are_is_said_to_be() -> None:
    forecaster = Forecaster(window=30, enough=5)
    forecaster.add(100.0, 0, 0)
    forecaster.add(110.0, 20_000, 15_000)
    forecast = forecaster.forecast(5_000)
    assert forecast is not None
    assert forecast.seconds is None
    assert str(forecast) == ("never at this rate: 2,000 keys/s arrive, 1,500 keys/s are applied")


def test_only_the_last_while_counts() -> None:
    forecaster = Forecaster(window=30, enough=5)
    forecaster.add(0.0, 0, 0)
    forecaster.add(100.0, 1_000_000, 0)
    forecaster.add(110.0, 1_000_000, 1_000)
    forecast = forecaster.forecast(500)
    assert forecast is not None
    assert forecast.seconds == 5


def test_nothing_pending_is_zero_whatever_the_rates() -> None:
    forecaster = Forecaster(window=30, enough=5)
    forecaster.add(0.0, 0, 0)
    forecaster.add(10.0, 100, 50)
    forecast = forecaster.forecast(0)
    assert forecast is not None
    assert forecast.seconds == 0
