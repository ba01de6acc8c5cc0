"""The comparison with the OpenAPI documents finds what it looks for; and null-fields.md tells the truth."""

from tests.api.spec_check import document, examples, needs_contract, null_fields, problems

pytestmark = needs_contract


def test_null_fields_exist_and_have_a_reason() -> None:
    assert null_fields()
    for row, reason in null_fields().items():
        assert row.field in document(row.product)["components"]["schemas"][row.schema]["properties"], row
        assert reason, row


def test_the_examples_themselves_are_right() -> None:
    for name in ("messaging.v1.service", "messaging.v1.service.short_code"):
        found = list(examples("messaging_v1", name))
        assert len(found) >= 3
        best = max(found, key=lambda example: sum(value is not None for value in example.values()))
        assert problems("messaging_v1", name, best) == []


def test_faults_are_found() -> None:
    (good, *_) = examples("messaging_v1", "messaging.v1.service.alpha_sender")
    faults = {
        "sid": "MG1",
        "account_sid": None,
        "date_created": "Thu, 30 Jul 2015 20:00:00 +0000",
        "capabilities": "SMS",
        "url": "/v1/Services",
    }
    found = problems("messaging_v1", "messaging.v1.service.alpha_sender", good | faults)
    assert {line.partition(":")[0] for line in found} == set(faults)
    del good["alpha_sender"]
    assert problems("messaging_v1", "messaging.v1.service.alpha_sender", good) == ["alpha_sender: missing"]
    wrong = problems("messaging_v1", "messaging.v1.service", {"validity_period": True})
    assert "validity_period: True is no integer" in wrong
