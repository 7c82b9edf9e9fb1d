"""What several tests of published files share: text that is read as a published file."""

import pytest

from offramp.environments.published import read_published


@pytest.fixture
def read(tmp_path):
    def reader(content, name="published.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_published(path, **options)

    return reader
