"""The version is written in two files; a release publishes the package, the image and the chart under one version."""

from pathlib import Path

import yaml

from genplug import __version__

CHART = Path(__file__).parents[2] / "deploy/helm/genplug/Chart.yaml"


def test_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load(CHART.read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
