"""The image that the tests of this directory share: it is built once."""

from pathlib import Path

import pytest

from tests.support.image import Image, build_image, copy_checkout

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout that does not change while its builds are compared."""
    return copy_checkout(REPOSITORY, tmp_path_factory.mktemp("image") / "checkout")


@pytest.fixture(scope="session")
def image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("image")
    return Image.unpack(build_image(checkout, directory / "layout"), directory / "bundle")
