"""The service as a process of the web app's own."""

import httpx
import pytest

from tests.webapp.studies_at_hand import ROOT
from webapp.errors import WebappError
from webapp.local_service import serving
from webapp.service_client import ServiceClient


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(WebappError, match=r"is not a checkpoint folder .*`python -m training run`"):
        serving(tmp_path).__enter__()


@pytest.mark.slow
def test_a_checkpoint_is_served_while_it_is_needed_and_no_longer():
    with serving(ROOT / "checkpoints" / "pbc64") as address, httpx.Client(base_url=address) as http:
        assert ServiceClient(http).model().image_size == 64
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/readyz")
