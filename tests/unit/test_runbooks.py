"""The runbooks have the steps and the commands that the tests of the faults follow."""

import pytest

from tests.faults.alert_faults import FAULTS, Fault, runbook


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_runbook_has_the_step_and_the_command(fault: Fault) -> None:
    """What tests/faults/test_alerts.py does is what the page says."""
    page = runbook(fault.alert)

    assert fault.mend.quoted in page["What to do"]
    assert fault.confirm is None or f"`{fault.confirm.command}`" in page["How to confirm"]
